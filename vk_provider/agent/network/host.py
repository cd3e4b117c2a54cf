"""The host's share of the built-in network: the bridge, forwarding, the table of rules.

Where the operator brings a CNI configuration, all this is that configuration's business.
Everything made here is named in `undo`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from vk_provider.agent.network import firewall
from vk_provider.agent.tools import PIPE, tool
from vk_provider.common.errors import FailedPrecondition, Invalid
from vk_provider.common.logging import get_logger

_BRIDGE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_DEFAULT_MTU = 1500
_SYSCTL = Path("/proc/sys/net")
_BRIDGED = "bridge/bridge-nf-call-iptables"
_log = get_logger("agent.network")


def check_cidrs(cidrs: Sequence[str]) -> list[str]:
    """Return the networks in canonical form. Raises Invalid: no network, too small, doubled."""
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for cidr in cidrs:
        try:
            network = ipaddress.ip_network(cidr)
        except ValueError as exc:
            raise Invalid(f"the pod CIDR {cidr!r} is no network: {exc}") from exc
        if network.num_addresses < 4:
            raise Invalid(f"the pod CIDR {cidr} is too small to hold a gateway and a pod")
        if network.version in {other.version for other in networks}:
            raise Invalid(f"two pod CIDRs are of one family: {', '.join(cidrs)}")
        networks.append(network)
    return [str(network) for network in networks]


def gateways(cidrs: Sequence[str]) -> list[str]:
    """Return the bridge's addresses: the first of each network, as host-local chooses them."""
    found = []
    for cidr in cidrs:
        network = ipaddress.ip_network(cidr)
        found.append(f"{network.network_address + 1}/{network.prefixlen}")
    return found


def bridge_mac(cidr: str) -> str:
    """Return a MAC address that stays, whichever ports come and go (pods cache it)."""
    first = ipaddress.ip_network(cidr).network_address + 1
    return "0a:58:" + ":".join(f"{byte:02x}" for byte in first.packed[-4:])


async def prepare(cidrs: Sequence[str], direct: Sequence[str], bridge: str, mtu: int) -> int:
    """Set the host up for the built-in network; return the MTU. Idempotent.

    Raises Invalid (a bridge name that is none), FailedPrecondition (what the host lacks).
    """
    if not _BRIDGE_NAME.fullmatch(bridge):
        raise Invalid(f"{bridge!r} cannot be a bridge's name: at most 15 letters, digits, . _ -")
    mtu, networks = await asyncio.to_thread(_prepare_links, cidrs, bridge, mtu)
    if not (_SYSCTL / _BRIDGED).exists():
        await _load_br_netfilter()
    await asyncio.to_thread(_prepare_sysctls, cidrs, bridge)
    await firewall.apply(firewall.rules(networks, check_direct(direct), bridge))
    return mtu


async def undo(bridge: str) -> None:
    """Remove the table and the bridge. For a host that is given back. May be repeated."""
    await firewall.apply(firewall.remove())
    await asyncio.to_thread(_remove_bridge, bridge)


def check_direct(cidrs: Sequence[str]) -> list[str]:
    """Return destinations in canonical form. Raises Invalid."""
    try:
        return [str(ipaddress.ip_network(cidr)) for cidr in cidrs]
    except ValueError as exc:
        raise Invalid(f"a destination to reach without masquerade is no network: {exc}") from exc


def _of_version(cidrs: Sequence[str], version: int) -> list[str]:
    return [cidr for cidr in cidrs if ipaddress.ip_network(cidr).version == version]


def _prepare_links(cidrs: Sequence[str], bridge: str, mtu: int) -> tuple[int, list[str]]:
    """Make the bridge; return the MTU and all its networks (of former CIDRs too)."""
    try:
        with IPRoute() as netlink:
            mtu = mtu or _uplink_mtu(netlink)
            if not netlink.link_lookup(ifname=bridge):
                netlink.link("add", ifname=bridge, kind="bridge", address=bridge_mac(cidrs[0]))
                _log.info("made the bridge of the built-in network", bridge=bridge, mtu=mtu)
            index = netlink.link_lookup(ifname=bridge)[0]
            netlink.link("set", index=index, mtu=mtu, state="up")
            for gateway in gateways(cidrs):
                address, _, prefix = gateway.partition("/")
                # nodad: nobody else can have it, and plugins do not wait for the check.
                netlink.addr(
                    "replace", index=index, address=address, prefixlen=int(prefix), flags=0x02
                )
            networks = [
                f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}"
                for entry in netlink.get_addr(index=index)
            ]
    except NetlinkError as exc:
        raise FailedPrecondition(
            f"the bridge {bridge} could not be made: {exc}; this needs root and the kernel's bridge"
        ) from exc
    found = [ipaddress.ip_interface(network).network for network in networks]
    return mtu, [str(network) for network in found if not network.is_link_local]


def _uplink_mtu(netlink: IPRoute) -> int:
    for route in netlink.get_default_routes(family=2):
        index = route.get_attr("RTA_OIF")
        if index:
            return int(netlink.get_links(index)[0].get_attr("IFLA_MTU"))
    return _DEFAULT_MTU


def _remove_bridge(bridge: str) -> None:
    with IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=bridge):
            netlink.link("del", index=index)


def _prepare_sysctls(cidrs: Sequence[str], bridge: str) -> None:
    if _of_version(cidrs, 4):
        _switch_on("ipv4/ip_forward", "pods reach nothing beyond the host without it")
        _switch_on(f"ipv4/conf/{bridge}/route_localnet", "host ports on the host's loopback")
    if _of_version(cidrs, 6):
        _switch_on("ipv6/conf/all/forwarding", "pods reach nothing beyond the host without it")
    # A Service's answer between two pods of one bridge must pass the host's connection
    # tracking to be translated back.
    if (_SYSCTL / _BRIDGED).exists():
        _switch_on(_BRIDGED, "Services between pods of this host need it")
    else:
        _log.warning(
            "the kernel module br_netfilter is not loaded: a Service whose pod is on this "
            "host will not answer this host's pods; load it with: modprobe br_netfilter"
        )


async def _load_br_netfilter() -> None:
    """Load the module that has bridged packets seen by the host's rules, if it can be had."""
    try:
        async with tool(["modprobe", "br_netfilter"], package="kmod", stderr=PIPE) as process:
            _, words = await process.communicate()
    except FailedPrecondition as exc:
        _log.info("br_netfilter was not loaded", error=str(exc))
    else:
        _log.info("loaded br_netfilter", error=words.decode(errors="replace").strip()[:200])


def _switch_on(name: str, reason: str) -> None:
    path = _SYSCTL / name
    try:
        if path.read_text().strip() != "1":
            path.write_text("1")
            _log.info("switched on", sysctl="net." + name.replace("/", "."), reason=reason)
    except OSError as exc:
        raise FailedPrecondition(f"{path} could not be set to 1 ({exc}): {reason}") from exc
