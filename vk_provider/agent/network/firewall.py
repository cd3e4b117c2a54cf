"""The built-in network's one nftables table: masquerade, host ports. Scripts are pure text.

Every script can be run again and changes nothing then; what is in the maps of host ports stays
when the rules are written anew.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from vk_provider.agent.tools import PIPE, tool
from vk_provider.common.errors import FailedPrecondition

TABLE = "vk_provider"
# Packets to a host port that must come back through the host. The bit is portmap's own.
_MASQUERADE_MARK = "0x2000"
_FAMILIES = (("ip", 4, "127.0.0.0/8", "224.0.0.0/4"), ("ip6", 6, "::1/128", "ff00::/8"))
_CHAINS = {
    "guard": "type filter hook prerouting priority raw; policy accept;",
    "prerouting": "type nat hook prerouting priority dstnat; policy accept;",
    "output": "type nat hook output priority -100; policy accept;",
    "postrouting": "type nat hook postrouting priority srcnat; policy accept;",
    "ports": "",
}


def rules(cidrs: Sequence[str], direct: Sequence[str], bridge: str) -> str:
    """Return the script that makes the table or brings it up to date.

    Pods appear with the host's address wherever nobody knows the way back to them. Traffic
    to the host itself and between pods is never changed. The host's own loopback reaches host
    ports too; for that it may be routed to the bridge, and `guard` lets nothing come back.
    """
    body: dict[str, list[str]] = {name: [] for name in _CHAINS}
    body["prerouting"].append("fib daddr type local jump ports")
    body["output"].append("fib daddr type local jump ports")
    for family, version, loopback, multicast in _FAMILIES:
        pods = _of_version(cidrs, version)
        if not pods:
            continue
        near = ", ".join(_of_version([*cidrs, *direct, multicast], version))
        body["guard"].append(f'iifname "{bridge}" {family} daddr {loopback} drop')
        near_by = f"{family} saddr {{ {', '.join(pods)}, {loopback} }}"
        body["ports"] += [
            f"{near_by} meta mark set meta mark | {_MASQUERADE_MARK}",
            f"dnat {family} to {family} daddr . meta l4proto . th dport map @ports{version}_at",
            f"dnat {family} to meta l4proto . th dport map @ports{version}",
        ]
        body["postrouting"].append(
            f"{family} saddr {{ {', '.join(pods)} }} {family} daddr != {{ {near} }} "
            f'oifname != {{ "{bridge}", "lo" }} masquerade'
        )
    marked = f"meta mark & {_MASQUERADE_MARK} == {_MASQUERADE_MARK}"
    body["postrouting"].append(f'oifname "{bridge}" ct status dnat {marked} masquerade')
    lines = [f"table inet {TABLE} {{"]
    for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        value = f"{kind} . inet_service"
        lines.append(f"  map ports{version} {{ type inet_proto . inet_service : {value}; }}")
        key = f"{kind} . inet_proto . inet_service"
        lines.append(f"  map ports{version}_at {{ type {key} : {value}; }}")
    lines += [f"  chain {name} {{ {hook} }}" for name, hook in _CHAINS.items()]
    lines.append("}")
    lines += [f"flush chain inet {TABLE} {name}" for name in _CHAINS]
    for name, chain in body.items():
        lines += [f"add rule inet {TABLE} {name} {rule}" for rule in chain]
    return "\n".join(lines) + "\n"


def add_ports(mappings: Iterable[dict[str, Any]], ips: Sequence[str]) -> str:
    """Return the script that leads host ports to a pod (`mappings` as portmap takes them)."""
    return "".join(
        f"add element inet {TABLE} {name} {{ {key} : {value} }}\n"
        for name, key, value in _elements(mappings, ips)
    )


def remove_ports(mappings: Iterable[dict[str, Any]], ips: Sequence[str]) -> str:
    """Return the script that takes them back, whether they are there or not."""
    return "".join(
        f"add element inet {TABLE} {name} {{ {key} : {value} }}\n"
        f"delete element inet {TABLE} {name} {{ {key} }}\n"
        for name, key, value in _elements(mappings, ips)
    )


def remove() -> str:
    """Return the script that removes the table, whether it is there or not."""
    return f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"


async def apply(script: str) -> None:
    """Run a script as one transaction. Raises FailedPrecondition with nft's words."""
    if not script:
        return
    async with tool(["nft", "-f", "-"], package="nftables", stdin=PIPE, stderr=PIPE) as process:
        _, complaint = await process.communicate(script.encode())
    if process.returncode != 0:
        words = complaint.decode(errors="replace").strip()[:1000]
        raise FailedPrecondition(f"nft refused a change of its table {TABLE}: {words}")


@dataclass(frozen=True)
class PortElement:
    """What leads a host port to a pod: `ip` is the pod's address."""

    map_name: str
    key: str
    ip: str

    @property
    def removal(self) -> str:
        """The script that takes it back."""
        return f"delete element inet {TABLE} {self.map_name} {{ {self.key} }}\n"


async def list_ports() -> list[PortElement]:
    """Return what leads to pods. Raises FailedPrecondition with nft's words."""
    command = ["nft", "--json", "list", "table", "inet", TABLE]
    async with tool(command, package="nftables", stdout=PIPE, stderr=PIPE) as process:
        listing, complaint = await process.communicate()
    if process.returncode != 0:
        words = complaint.decode(errors="replace").strip()[:1000]
        raise FailedPrecondition(f"nft did not list its table {TABLE}: {words}")
    return parse_ports(listing)


def parse_ports(listing: bytes) -> list[PortElement]:
    """Read nft's JSON (libnftables-json(5))."""
    return [
        PortElement(found["name"], " . ".join(map(str, key["concat"])), value["concat"][0])
        for item in orjson.loads(listing)["nftables"]
        if (found := item.get("map"))
        for key, value in found.get("elem", [])
    ]


def _elements(
    mappings: Iterable[dict[str, Any]], ips: Sequence[str]
) -> Iterable[tuple[str, str, str]]:
    for mapping in mappings:
        key = f"{mapping['protocol']} . {mapping['hostPort']}"
        host = mapping.get("hostIP", "")
        wanted = ipaddress.ip_address(host) if host else None
        for ip in map(ipaddress.ip_address, ips):
            value = f"{ip} . {mapping['containerPort']}"
            if wanted is None or wanted.is_unspecified:
                yield f"ports{ip.version}", key, value
            elif wanted.version == ip.version:
                yield f"ports{ip.version}_at", f"{wanted} . {key}", value


def _of_version(cidrs: Sequence[str], version: int) -> list[str]:
    """Return the networks of one family, merged: nft takes no overlapping ones in a set."""
    networks = [ipaddress.ip_network(cidr) for cidr in cidrs]
    if version == 4:
        ours4 = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
        return [str(network) for network in ipaddress.collapse_addresses(ours4)]
    ours6 = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return [str(network) for network in ipaddress.collapse_addresses(ours6)]
