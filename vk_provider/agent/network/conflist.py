"""CNI network configurations: read, chosen, made (CNI specification 1.0, section 1).

Pure but for `load`, which reads the directory.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from vk_provider._pb.sandbox_pb2 import PortMapping
from vk_provider.common.errors import FailedPrecondition, Invalid

_MAX_BYTES = 1024 * 1024
_VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
BUILT_IN = "built-in"
_PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True)
class Conflist:
    """A network configuration list: plugins in the order of ADD."""

    name: str
    cni_version: str
    plugins: tuple[dict[str, Any], ...]
    source: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "cniVersion": self.cni_version,
            "plugins": list(self.plugins),
        }

    @property
    def is_built_in(self) -> bool:
        return self.source == BUILT_IN

    @property
    def capabilities(self) -> set[str]:
        """What the plugins can be told at run time."""
        return {
            name
            for plugin in self.plugins
            for name, on in plugin.get("capabilities", {}).items()
            if on
        }


def load(directory: Path) -> Conflist | None:
    """Return the first configuration of a directory, by name; None where there is none.

    Raises FailedPrecondition when that first one cannot be used.
    """
    try:
        names = sorted(
            path for path in directory.iterdir() if path.suffix in (".conf", ".conflist", ".json")
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not names:
        return None
    path = names[0]
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FailedPrecondition(f"the CNI configuration {path} is larger than 1 MiB")
        return parse(path.read_bytes(), str(path))
    except OSError as exc:
        raise FailedPrecondition(f"the CNI configuration {path} cannot be read: {exc}") from exc


def parse(data: bytes, source: str) -> Conflist:
    """Read a configuration (a list, or a single plugin's). Raises FailedPrecondition."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise FailedPrecondition(f"the CNI configuration {source} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise FailedPrecondition(f"the CNI configuration {source} is not a JSON object")
    plugins = value.get("plugins", [value])
    name, version = value.get("name"), value.get("cniVersion", "0.2.0")
    if not isinstance(name, str) or not name:
        raise FailedPrecondition(f"the CNI configuration {source} has no name")
    if version not in _VERSIONS:
        known = ", ".join(_VERSIONS)
        raise FailedPrecondition(
            f"the CNI configuration {source} is of version {version!r}; known are {known}"
        )
    if not isinstance(plugins, list) or not plugins:
        raise FailedPrecondition(f"the CNI configuration {source} lists no plugins")
    for plugin in plugins:
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if not isinstance(kind, str) or not kind or "/" in kind:
            raise FailedPrecondition(f"a plugin in the CNI configuration {source} has no type")
        if not isinstance(plugin.get("capabilities", {}), dict):
            raise FailedPrecondition(f"the capabilities of {kind} in {source} are not an object")
    return Conflist(name, version, tuple(plugins), source)


def built_in(cidrs: Sequence[str], bridge: str, mtu: int, data_dir: Path) -> Conflist:
    """Return the configuration for hosts without one: bridge and host-local.

    The bridge's addresses are set beforehand (host.py), for the plugin takes no second one when
    the node's CIDR changes, and pods with the old gateway live on.
    Host ports are the table's business (firewall.py): portmap would leave iptables chains behind.
    """
    ranges, routes = [], []
    for cidr in cidrs:
        network = ipaddress.ip_network(cidr)
        gateway = str(network.network_address + 1)
        ranges.append([{"subnet": str(network), "gateway": gateway}])
        everywhere = "0.0.0.0/0" if network.version == 4 else "::/0"
        routes.append({"dst": everywhere, "gw": gateway})
    bridge_plugin = {
        "type": "bridge",
        "bridge": bridge,
        "hairpinMode": True,
        "mtu": mtu,
        "ipam": {
            "type": "host-local",
            "dataDir": str(data_dir),
            "ranges": ranges,
            "routes": routes,
        },
    }
    return Conflist("vk-provider", "1.0.0", (bridge_plugin,), BUILT_IN)


def runtime_config(conflist: Conflist, mappings: Sequence[PortMapping]) -> dict[str, Any]:
    """Return what the plugins are told about this pod, by capability.

    Raises Invalid for an impossible mapping, FailedPrecondition when host ports are asked for
    and no plugin can give them.
    """
    if not mappings:
        return {}
    if not conflist.is_built_in and "portMappings" not in conflist.capabilities:
        raise FailedPrecondition(
            f"the pod asks for a host port, and no plugin of the CNI configuration "
            f"{conflist.source} offers portMappings: add portmap to it, or leave hostPort out"
        )
    return {"portMappings": [_mapping(mapping) for mapping in mappings]}


def _mapping(mapping: PortMapping) -> dict[str, Any]:
    protocol = (mapping.protocol or "TCP").lower()
    if protocol not in _PROTOCOLS:
        raise Invalid(
            f"a port mapping has the protocol {mapping.protocol!r}; there are TCP, UDP, SCTP"
        )
    if not (0 < mapping.host_port < 65536 and 0 < mapping.container_port < 65536):
        raise Invalid(
            f"host port {mapping.host_port} cannot be mapped to port {mapping.container_port}: "
            "ports are 1 to 65535"
        )
    entry: dict[str, Any] = {
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": protocol,
    }
    if mapping.host_ip:
        try:
            entry["hostIP"] = str(ipaddress.ip_address(mapping.host_ip))
        except ValueError as exc:
            raise Invalid(f"a port mapping has the address {mapping.host_ip!r}") from exc
    return entry


def plugin_config(
    conflist: Conflist,
    plugin: dict[str, Any],
    runtime: dict[str, Any],
    previous: dict[str, Any] | None,
) -> bytes:
    """Return what one plugin gets on its standard input (CNI specification, section 3)."""
    config = {key: value for key, value in plugin.items() if key != "capabilities"}
    config["name"] = conflist.name
    config["cniVersion"] = conflist.cni_version
    wanted = {
        name: runtime[name]
        for name, on in plugin.get("capabilities", {}).items()
        if on and name in runtime
    }
    if wanted:
        config["runtimeConfig"] = wanted
    if previous is not None:
        config["prevResult"] = previous
    return orjson.dumps(config)
