"""`status.resources` of a container: the spec's figures, or what its cgroup has."""

from __future__ import annotations

import copy
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.quantity import cpu_milli, whole
from vk_provider.pods.podspec import Container

_DEFAULT_PERIOD_US = 100_000
_LEAST_CPU_LIMIT_MILLI = 10  # kubelet cm.MinMilliCPULimit: below it the kernel's floor shows


def reported_resources(container: Container, run: pb.ContainerStatus) -> dict[str, Any]:
    """Return the resources of a run; a figure is replaced only where the cgroup differs."""
    resources: dict[str, Any] = copy.deepcopy(dict(container.get("resources") or {}))
    limits = resources.get("limits")
    if run.state != pb.CONTAINER_RUNNING or not run.HasField("resources") or not limits:
        return resources
    actual = run.resources
    if actual.cpu_quota_us > 0:
        milli = actual.cpu_quota_us * 1000 // (actual.cpu_period_us or _DEFAULT_PERIOD_US)
        told = cpu_milli(limits["cpu"]) if "cpu" in limits else 0
        if milli != told and max(milli, told) > _LEAST_CPU_LIMIT_MILLI:
            limits["cpu"] = f"{milli}m"
    if actual.memory_limit_bytes > 0:
        told = whole(limits["memory"]) if "memory" in limits else 0
        if actual.memory_limit_bytes != told:
            limits["memory"] = str(actual.memory_limit_bytes)
    return resources
