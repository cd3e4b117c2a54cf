"""The pod's network: a CNI interface in a namespace of the pod's own, joined to QEMU's tap.

`PodNetwork` runs any CNI configuration of the host, or the built-in one (bridge, host-local,
portmap) where there is none. The guest gets what the plugins gave the interface: MAC, MTU,
addresses, routes. This room knows no VM and opens no connection; policy, Services and the
routes between nodes are the host's.
"""

from __future__ import annotations

from vk_provider.agent.network.attachment import Attachment, Tap
from vk_provider.agent.network.pod_network import PodNetwork
from vk_provider.agent.network.settings import NetworkSettings

__all__ = ["Attachment", "NetworkSettings", "PodNetwork", "Tap"]
