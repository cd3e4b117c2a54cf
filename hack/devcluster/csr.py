"""Approves the node's serving certificate, which in a plain cluster nobody does."""

from __future__ import annotations

import base64
import ipaddress
from typing import Any

from cryptography import x509

from hack.devcluster.demo import Kubectl
from hack.devcluster.settings import ClusterSettings

SIGNER = "kubernetes.io/kubelet-serving"


def approve_serving(kubectl: Kubectl, settings: ClusterSettings) -> None:
    """Approve pending requests of our node whose names are the node's own and nothing else.

    Other nodes' requests are not ours to judge.
    """
    user = f"system:node:{settings.node_name}"
    for request in kubectl.json("get", "csr", f"--field-selector=spec.signerName={SIGNER}")[
        "items"
    ]:
        if request.get("status", {}).get("conditions") or request["spec"]["username"] != user:
            continue
        if problem := _problem(request, settings):
            raise SystemExit(
                f"won't approve the serving certificate {request['metadata']['name']}: {problem}"
            )
        kubectl.run("certificate", "approve", request["metadata"]["name"])


def _problem(request: dict[str, Any], settings: ClusterSettings) -> str:
    parsed = x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"]))
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "it names no host"
    foreign = [n for n in names.get_values_for_type(x509.DNSName) if n != settings.node_name]
    own = ipaddress.ip_address(settings.node_address)
    foreign += [str(a) for a in names.get_values_for_type(x509.IPAddress) if a != own]
    return f"it names {', '.join(foreign)}, which is not this node" if foreign else ""
