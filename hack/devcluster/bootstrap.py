"""What lets a node join by TLS bootstrap: a token, and the rights that come with it."""

from __future__ import annotations

import datetime
import secrets
from pathlib import Path

from hack.devcluster import pki
from hack.devcluster.settings import ROOT, ClusterSettings

# Joining takes seconds, and a later hack/up renews it.
_VALID = datetime.timedelta(days=1)


def manifest(settings: ClusterSettings) -> str:
    """Return what the cluster needs; the same names each time, so that it can be deleted by it."""
    token_id, token_secret = _token(settings).split(".")
    expiration = datetime.datetime.now(datetime.UTC) + _VALID
    return (
        (ROOT / "hack" / "devcluster" / "bootstrap.yaml")
        .read_text()
        .replace("TOKEN_ID", token_id)
        .replace("TOKEN_SECRET", token_secret)
        .replace("EXPIRATION", expiration.strftime("%Y-%m-%dT%H:%M:%SZ"))
    )


def write_kubeconfig(settings: ClusterSettings, server: dict[str, str]) -> Path:
    """Return a kubeconfig with the token, for a cluster entry (server, certificate-authority)."""
    path = settings.directory / "bootstrap.kubeconfig"
    pki.write_kubeconfig_with(path, "bootstrap", server, {"token": _token(settings)})
    return path


def _token(settings: ClusterSettings) -> str:
    path = settings.directory / "bootstrap.token"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(f"{secrets.token_hex(3)}.{secrets.token_hex(8)}")
    return path.read_text()
