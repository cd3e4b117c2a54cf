"""What the node tells this room once: the cluster's DNS, the host's memory, what is allowed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PodSettings:
    """Settings that the translation of pod specs reads; all of them hold for the whole node."""

    node_name: str = ""
    cluster_dns: tuple[str, ...] = ()
    """Addresses of the cluster's DNS service; empty: pods fall back to dnsPolicy Default."""
    cluster_domain: str = "cluster.local"
    memory_capacity_bytes: int = 0
    """The node's memory: the whole of which a request is a share in oomScoreAdj."""
    allowed_unsafe_sysctls: tuple[str, ...] = ()
    """Names, or prefixes that end in `*`, that pods may set besides the safe ones."""
    runtime_classes: tuple[str, ...] = ("vk-provider",)
    """RuntimeClasses that mean this node's microVMs; pods that name others are refused."""
