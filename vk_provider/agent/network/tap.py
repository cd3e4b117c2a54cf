"""QEMU's tap inside a pod's namespace, joined to the CNI interface.

Everything here runs in a thread that has entered the namespace. The join is Kata's: an ingress
qdisc on each of the two, and filters that redirect packets to the other one, so the guest
stands where the interface stood, with its MAC and addresses; unlike there, a guest that sends
as somebody else is not heard.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import struct
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from vk_provider.agent.network.attachment import Interface
from vk_provider.common.errors import FailedPrecondition, Unavailable

TAP = "tap0"

# linux/if_tun.h
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_INGRESS = 0xFFFF0000
_ETH_P_ALL, _ETH_P_IP, _ETH_P_ARP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x0806, 0x86DD
_RT_TABLE_MAIN, _RTPROT_KERNEL, _RTN_UNICAST = 254, 2, 1


def open_tap() -> int:
    """Open the namespace's tap, made if need be; it stays when the descriptor is closed.

    Raises FailedPrecondition while somebody (a running QEMU) has it open, OSError.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", TAP.encode(), flags))
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except OSError as exc:
        os.close(fd)
        if exc.errno == errno.EBUSY:
            raise FailedPrecondition(f"{TAP} is held by a QEMU that still runs") from exc
        raise
    return fd


def join(interface: str, addresses: list[str]) -> Interface:
    """Join an interface to the tap; return what the guest needs to take its place.

    `addresses` (with prefix length) are those the plugins reported, in their order. Idempotent.
    """
    try:
        with IPRoute() as netlink:
            links = {link.get_attr("IFLA_IFNAME"): link for link in netlink.get_links()}
            if interface not in links:
                raise Unavailable(f"the CNI plugins left no interface {interface}")
            outer, tap = links[interface], links[TAP]
            seen = Interface(
                mac=outer.get_attr("IFLA_ADDRESS"),
                mtu=outer.get_attr("IFLA_MTU"),
                addresses=addresses,
                routes=_routes(netlink, outer["index"], addresses),
            )
            # IPv6 would answer for the guest's addresses, and find them in use.
            _no_ipv6(interface)
            netlink.link("set", index=tap["index"], mtu=seen.mtu, state="up")
            netlink.link("set", index=outer["index"], state="up")
            _redirect(netlink, outer["index"], tap["index"], [(_ETH_P_ALL, ["0x0/0x0+0"])])
            _redirect(netlink, tap["index"], outer["index"], own_packets(seen))
    except NetlinkError as exc:
        raise Unavailable(f"{interface} could not be joined to {TAP}: {exc}") from exc
    return seen


def prepare_namespace() -> None:
    """Set a new namespace up for `join`: no IPv6 of its own, the loopback up."""
    _no_ipv6("default")
    with IPRoute() as netlink:
        netlink.link("set", index=1, state="up")


def _no_ipv6(name: str) -> None:
    path = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if path.exists():  # not in a kernel without IPv6
        path.write_text("1")


def own_packets(interface: Interface) -> list[tuple[int, list[str]]]:
    """Return what a guest may send: u32 keys for each Ethernet protocol, any list of which fits.

    Packets from its own addresses, and ARP that tells no other than the truth; a guest that
    takes over a neighbour's address harms nobody, since nothing of it gets out. Offsets count
    from the network header.
    """
    mac = interface.mac.replace(":", "")
    found: list[tuple[int, list[str]]] = []
    for ip in map(ipaddress.ip_address, interface.ips):
        if ip.version == 4:
            found.append((_ETH_P_IP, [f"0x{int(ip):08x}/0xffffffff+12"]))
            sender = [f"0x{mac[:8]}/0xffffffff+8", f"0x{mac[8:]}/0xffff+12"]
            found.append((_ETH_P_ARP, [*sender, f"0x{int(ip):08x}/0xffffffff+14"]))
        else:
            found.append((_ETH_P_IPV6, _ipv6_source(int(ip), 128)))
    if any(protocol == _ETH_P_IPV6 for protocol, _ in found):
        # Neighbour discovery: link-local addresses, and none at all while one is looked for.
        found.append((_ETH_P_IPV6, _ipv6_source(int(ipaddress.ip_address("fe80::")), 64)))
        found.append((_ETH_P_IPV6, _ipv6_source(0, 128)))
    return found


def _ipv6_source(address: int, prefix: int) -> list[str]:
    words = [address >> shift & 0xFFFFFFFF for shift in (96, 64, 32, 0)]
    return [f"0x{words[i]:08x}/0xffffffff+{8 + 4 * i}" for i in range(prefix // 32)]


def _redirect(
    netlink: IPRoute, source: int, target: int, matches: list[tuple[int, list[str]]]
) -> None:
    try:
        netlink.tc("add", "ingress", source, _INGRESS)
    except NetlinkError as exc:
        if exc.code != errno.EEXIST:
            raise
        # Joined before, perhaps not to its end: the filters go with the qdisc.
        netlink.tc("del", "ingress", source, _INGRESS)
        netlink.tc("add", "ingress", source, _INGRESS)
    for priority, (protocol, keys) in enumerate(matches, start=1):
        netlink.tc(
            "add-filter",
            "u32",
            source,
            parent=_INGRESS,
            protocol=protocol,
            prio=priority,
            target=0,
            keys=keys,
            action={
                "kind": "mirred",
                "direction": "egress",
                "action": "redirect",
                "ifindex": target,
            },
        )


def _routes(netlink: IPRoute, index: int, addresses: list[str]) -> list[tuple[str, str]]:
    """Return the interface's routes, those to gateways last: they need the others.

    Without those that the kernel makes for each address by itself.
    """
    own = {str(ipaddress.ip_interface(cidr).network) for cidr in addresses}
    found: list[tuple[str, str]] = []
    for family, default in ((2, "0.0.0.0/0"), (10, "::/0")):
        for route in netlink.get_routes(family=family, table=_RT_TABLE_MAIN, oif=index):
            if route["type"] != _RTN_UNICAST:
                continue
            destination = _destination(route, default)
            gateway = route.get_attr("RTA_GATEWAY") or ""
            kernels = route["proto"] == _RTPROT_KERNEL and not gateway
            if not (kernels or destination in own or destination.startswith("fe80:")):
                found.append((destination, gateway))
    return sorted(found, key=lambda route: route[1] != "")


def _destination(route: Any, default: str) -> str:
    address = route.get_attr("RTA_DST")
    return f"{address}/{route['dst_len']}" if address else default
