"""CertificateSigningRequests: asking the cluster for a certificate, and waiting for it."""

from __future__ import annotations

import base64
import binascii
import contextlib
from pathlib import Path
from typing import Any, Literal

from vk_provider.common.clock import Clock
from vk_provider.common.errors import AlreadyExists, Internal, NotFound, PermissionDenied
from vk_provider.kube.client import KubeClient, Object
from vk_provider.kube.pki import Identity, load_or_make_key, make_identity, make_request

Signer = Literal["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"]
CLIENT: Signer = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING: Signer = "kubernetes.io/kubelet-serving"
_USAGES: dict[Signer, list[str]] = {
    CLIENT: ["digital signature", "client auth"],
    SERVING: ["digital signature", "server auth"],
}
_PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


async def request_certificate(
    client: KubeClient,
    clock: Clock,
    *,
    signer: Signer,
    node_name: str,
    sans: tuple[str, ...],
    pending_key: Path,
) -> Identity:
    """Ask for a certificate for `system:node:NAME` and wait, however long, until it is issued.

    The key waits in `pending_key`, and the request's name comes from it: after a restart the same
    request is found again, and no second one is made. Raises PermissionDenied when the request is
    denied (the key is dropped), NotFound when it vanished, Unavailable when the server is away.
    """
    key = load_or_make_key(pending_key)
    pem, digest = make_request(key, node_name, sans)
    kind = "client" if signer == CLIENT else "serving"
    name = f"vk-{kind}-{digest}"
    body: Object = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64.b64encode(pem).decode(),
            "signerName": signer,
            "usages": _USAGES[signer],
        },
    }
    try:
        try:
            current = await client.create(_PATH, body)
        except AlreadyExists:
            current = await client.get(f"{_PATH}/{name}")
        chain = await _issued(client, name, current, clock)
    except PermissionDenied:
        pending_key.unlink(missing_ok=True)
        raise
    return make_identity(chain, key)


async def _issued(client: KubeClient, name: str, current: Object, clock: Clock) -> bytes:
    while True:
        if (chain := _outcome(name, current)) is not None:
            return chain
        params = {
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": current["metadata"]["resourceVersion"],
            "timeoutSeconds": 600,
        }
        async with contextlib.aclosing(client.watch(_PATH, params)) as events:
            async for event in events:
                if event.type == "DELETED":
                    raise NotFound(f"The certificate request {name} was deleted before an answer")
                if event.type in {"ADDED", "MODIFIED"}:
                    current = event.object
                    if (chain := _outcome(name, current)) is not None:
                        return chain
        await clock.sleep(1)
        current = await client.get(f"{_PATH}/{name}")


def _outcome(name: str, request: Object) -> bytes | None:
    status: dict[str, Any] = request.get("status") or {}
    approved = False
    for condition in status.get("conditions") or ():
        if condition["type"] in {"Denied", "Failed"}:
            raise PermissionDenied(
                f"The certificate request {name} was {condition['type'].lower()}: "
                f"{condition.get('reason', '')} {condition.get('message', '')}".rstrip()
            )
        approved = approved or condition["type"] == "Approved"
    certificate = status.get("certificate")
    if not approved or not certificate:
        return None
    try:
        return base64.b64decode(certificate, validate=True)
    except binascii.Error as exc:
        raise Internal(f"The certificate request {name} was answered without base64") from exc
