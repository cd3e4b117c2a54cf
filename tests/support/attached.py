"""A sandbox on the network, without a VM: the test itself holds the tap's other end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from vk_provider._pb.guest_pb2 import NetworkInterface
from vk_provider._pb.sandbox_pb2 import PodMetadata, PortMapping
from vk_provider.agent.network import PodNetwork


@dataclass(frozen=True)
class Attached:
    """The namespace's name, the tap's descriptor (the receiver closes it), and the attachment."""

    netns: str
    tap_fd: int
    interface: NetworkInterface
    ips: list[str]


async def set_up(
    network: PodNetwork, sandbox_id: str, pod: PodMetadata, ports: Sequence[PortMapping]
) -> Attached:
    """Open a sandbox's tap and attach it, as a start does."""
    tap = await network.open_tap(sandbox_id)
    try:
        attachment = await network.attach(sandbox_id, pod, ports)
    except BaseException:
        os.close(tap.fd)
        raise
    return Attached(tap.netns, tap.fd, attachment.interface, attachment.ips)
