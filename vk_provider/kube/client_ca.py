"""Whose client certificates the node's HTTPS API accepts (the API server's among them)."""

from __future__ import annotations

from pathlib import Path

from vk_provider.common.errors import (
    DeadlineExceeded,
    Invalid,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from vk_provider.common.logging import get_logger
from vk_provider.kube.client import KubeClient
from vk_provider.kube.kubeconfig import read_kubeconfig

_PATH = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"

log = get_logger("kube.client_ca")


async def load_client_ca(
    client: KubeClient, *, file: Path | None, kubeconfig: Path | None
) -> bytes | None:
    """Return the authority in PEM: the file's, else the cluster's own word, else the kubeconfig's.

    The cluster publishes it in a ConfigMap that a node may read only where a RoleBinding to
    `extension-apiserver-authentication-reader` says so. The kubeconfig's authority signed the API
    server's certificate; in most clusters (not in k3s) it signs client certificates too. None:
    no authority is known, and clients are told apart by tokens alone.
    """
    if file is not None:
        try:
            return file.read_bytes()
        except OSError as exc:
            raise Invalid(f"The client CA file {file} can't be read: {exc.strerror}") from exc
    try:
        published = await client.get(_PATH)
        if pem := (published.get("data") or {}).get("client-ca-file"):
            return str(pem).encode()
    except (PermissionDenied, NotFound, Unavailable, DeadlineExceeded) as exc:
        log.debug("client CA not read from the cluster", error=str(exc))
    return read_kubeconfig(kubeconfig).authority_pem() if kubeconfig is not None else None
