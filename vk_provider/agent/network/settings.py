"""What the operator can say about the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NetworkSettings:
    """state_dir: where attachments and the built-in network's addresses are remembered.

    cni_conf_dir: the first configuration in it, by name, is used; if there is none, the
        built-in network is, as soon as the node has a pod CIDR.
    cni_bin_dirs: where plugins are looked for, in this order.
    bridge: the built-in network's bridge.
    mtu: of the built-in network; 0: that of the interface with the default route.
    direct_cidrs: destinations that the built-in network lets see a pod's own address (other
        nodes' pods, above all); elsewhere pods appear with the host's address.
    plugin_timeout_s: how long one plugin may take.
    """

    state_dir: Path
    cni_conf_dir: Path = Path("/etc/cni/net.d")
    cni_bin_dirs: tuple[Path, ...] = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
    bridge: str = "vkbr0"
    mtu: int = 0
    direct_cidrs: tuple[str, ...] = ()
    plugin_timeout_s: float = 60.0
