"""Ports of probes and hooks, by number or by name (pkg/probe ResolveContainerPort)."""

from __future__ import annotations

from vk_provider.pods.podspec import Container
from vk_provider.pods.probes.model import CheckError

_MAX_PORT = 65535


def resolve_port(port: int | str | None, container: Container) -> int:
    """Return the port's number; raises CheckError for a name or number that is none."""
    if isinstance(port, str):
        number = _by_name(port, container)
    else:
        number = port or 0
    if not 0 < number <= _MAX_PORT:
        raise CheckError(f"invalid port number: {port}")
    return number


def _by_name(name: str, container: Container) -> int:
    for port in container.get("ports") or ():
        if port.get("name") == name:
            return int(port["containerPort"])
    if name.isdecimal():
        return int(name)
    raise CheckError(f'container "{container["name"]}" has no port named "{name}"')


def host_port(host: str, port: int) -> str:
    """Join an address and a port, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
