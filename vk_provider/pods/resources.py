"""What containers and pods ask for, and the cgroup settings that follow.

Source: component-helpers/resource, kuberuntime calculateLinuxResources, cm/helpers_linux.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Literal

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.quantity import parse_quantity
from vk_provider.pods.amounts import bounded_milli, bounded_whole
from vk_provider.pods.podspec import (
    Container,
    Pod,
    app_containers,
    init_containers,
    is_sidecar,
)
from vk_provider.pods.qos import oom_score_adj
from vk_provider.pods.settings import PodSettings

Resources = dict[str, Fraction]
Kind = Literal["requests", "limits"]

CPU_PERIOD_US = 100_000
_MIN_QUOTA_US = 1_000
_MIN_SHARES = 2
_MAX_SHARES = 262_144
_SHARES_PER_CPU = 1_024


def cpu_shares(milli: int) -> int:
    """Return the cgroup v1 shares of a CPU request (MilliCPUToShares)."""
    return min(max(milli * _SHARES_PER_CPU // 1000, _MIN_SHARES), _MAX_SHARES)


def cpu_quota_us(milli: int, period_us: int = CPU_PERIOD_US) -> int:
    """Return the CFS quota of a CPU limit, 0 for none (MilliCPUToQuota)."""
    return max(milli * period_us // 1000, _MIN_QUOTA_US) if milli else 0


def linux_resources(pod: Pod, container: Container, *, settings: PodSettings) -> pb.LinuxResources:
    """Return the cgroup settings of a container.

    A limit that the container lacks is the pod's own, a CPU request that it lacks its limit.
    """
    own = container.get("resources") or {}
    limits = own.get("limits") or {}
    requests = own.get("requests") or {}
    of_pod = (pod["spec"].get("resources") or {}).get("limits") or {}
    cpu_limit = bounded_milli(limits.get("cpu", 0)) or bounded_milli(of_pod.get("cpu", 0))
    memory_limit = bounded_whole(limits.get("memory", 0)) or bounded_whole(of_pod.get("memory", 0))
    cpu_request = bounded_milli(requests["cpu"]) if "cpu" in requests else cpu_limit
    return pb.LinuxResources(
        cpu_shares=cpu_shares(cpu_request),
        cpu_quota_us=cpu_quota_us(cpu_limit),
        cpu_period_us=CPU_PERIOD_US,
        memory_limit_bytes=memory_limit,
        memory_request_bytes=bounded_whole(requests.get("memory", 0)),
        oom_score_adj=oom_score_adj(pod, container, settings.memory_capacity_bytes),
    )


def pod_requests(pod: Pod) -> Resources:
    """Return what the pod takes of a node: requests by resource name, overhead included."""
    return _with_overhead(pod, _aggregate(pod, "requests"), "requests")


def container_requests(pod: Pod) -> Resources:
    """Return what the pod's containers take together: requests by resource name."""
    return _aggregate(pod, "requests")


def pod_limits(pod: Pod) -> Resources:
    """Return the pod's limits by resource name, overhead added to those that are set."""
    return _with_overhead(pod, _aggregate(pod, "limits"), "limits")


def _aggregate(pod: Pod, kind: Kind) -> Resources:
    """Sum up as the scheduler does: app containers and sidecars together, or, where it is more,
    an init container with the sidecars started before it.
    """
    total = _sum(_of(container, kind) for container in app_containers(pod))
    sidecars: Resources = {}
    peak: Resources = {}
    for container in init_containers(pod):
        own = _of(container, kind)
        if is_sidecar(container):
            sidecars = _sum((sidecars, own))
            peak = _largest(peak, sidecars)
        else:
            peak = _largest(peak, _sum((sidecars, own)))
    total = _largest(_sum((total, sidecars)), peak)
    pod_level = (pod["spec"].get("resources") or {}).get(kind) or {}
    return total | _parse(pod_level)


def _with_overhead(pod: Pod, total: Resources, kind: Kind) -> Resources:
    for name, value in _parse(pod["spec"].get("overhead") or {}).items():
        if kind == "requests" or name in total:
            total[name] = total.get(name, Fraction(0)) + value
    return total


def _of(container: Container, kind: Kind) -> Resources:
    return _parse((container.get("resources") or {}).get(kind) or {})


def _parse(values: Mapping[str, Any]) -> Resources:
    return {name: parse_quantity(value) for name, value in values.items()}


def _sum(parts: Iterable[Resources]) -> Resources:
    total: Resources = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, Fraction(0)) + value
    return total


def _largest(one: Resources, other: Resources) -> Resources:
    return {
        name: max(one.get(name, Fraction(0)), other.get(name, Fraction(0)))
        for name in one.keys() | other.keys()
    }
