"""Environment variables that tell containers of Services (kubelet envvars.FromServices)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Service = Mapping[str, Any]


def service_environment(
    services: Iterable[Service], namespace: str, *, enable_service_links: bool
) -> dict[str, str]:
    """Return the variables for a pod in `namespace`, given the Services the node knows.

    `default/kubernetes` is always among them (in-cluster clients read it), the Services of the
    pod's own namespace only with enableServiceLinks.
    """
    chosen: dict[str, Service] = {}
    for service in services:
        if service["spec"].get("clusterIP") in (None, "", "None"):
            continue
        metadata = service["metadata"]
        if metadata["namespace"] == namespace and enable_service_links:
            chosen[metadata["name"]] = service
        elif metadata["namespace"] == "default" and metadata["name"] == "kubernetes":
            chosen.setdefault("kubernetes", service)
    environment: dict[str, str] = {}
    for name in sorted(chosen):
        environment |= _variables(chosen[name])
    return environment


def _variables(service: Service) -> dict[str, str]:
    ports = service["spec"].get("ports") or ()
    if not ports:
        return {}
    prefix = _variable_name(service["metadata"]["name"])
    address = str(service["spec"]["clusterIP"])
    found = {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(ports[0]["port"]),
    }
    for port in ports:
        if port.get("name"):
            found[f"{prefix}_SERVICE_PORT_{_variable_name(port['name'])}"] = str(port["port"])
    for index, port in enumerate(ports):
        protocol = port.get("protocol") or "TCP"
        endpoint = f"[{address}]:{port['port']}" if ":" in address else f"{address}:{port['port']}"
        url = f"{protocol.lower()}://{endpoint}"
        if index == 0:
            found[f"{prefix}_PORT"] = url
        one = f"{prefix}_PORT_{port['port']}_{protocol.upper()}"
        found[one] = url
        found[f"{one}_PROTO"] = protocol.lower()
        found[f"{one}_PORT"] = str(port["port"])
        found[f"{one}_ADDR"] = address
    return found


def _variable_name(name: str) -> str:
    return name.replace("-", "_").upper()
