"""Cgroup v2 limits of a container, from the CRI's v1-style figures."""

from __future__ import annotations

import math
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb

_DEFAULT_PERIOD_US = 100_000
_LEAST_SHARES, _MOST_SHARES = 2, 262_144


def cpu_weight(shares: int) -> int:
    """Return cgroup v2's cpu.weight (1 to 10000) for v1's shares (2 to 262144).

    The curve through least, most and default of both that runc and crun use since 2025
    (opencontainers/cgroups `ConvertCPUSharesToCgroupV2Value`).
    """
    if shares <= _LEAST_SHARES:
        return 1
    if shares >= _MOST_SHARES:
        return 10_000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def linux_resources(resources: pb.LinuxResources) -> dict[str, Any]:
    """Return OCI `linux.resources`; no swap, and an out-of-memory kill takes the whole container.

    (`memory.oom.group` is what the kubelet sets on cgroup v2.) What is unset is lifted.
    """
    cpu: dict[str, Any] = {"period": resources.cpu_period_us or _DEFAULT_PERIOD_US}
    cpu["quota"] = resources.cpu_quota_us if resources.cpu_quota_us > 0 else -1
    unified = {"memory.oom.group": "1"}
    if resources.cpu_shares:
        unified["cpu.weight"] = str(cpu_weight(resources.cpu_shares))
    limit = resources.memory_limit_bytes if resources.memory_limit_bytes > 0 else -1
    return {"cpu": cpu, "memory": {"limit": limit, "swap": limit}, "unified": unified}
