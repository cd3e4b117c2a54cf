"""The pod's quality-of-service class and the OOM score that follows from it.

Source: pkg/apis/core/v1/helper/qos, pkg/kubelet/qos/policy.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

from vk_provider.common.quantity import parse_quantity, whole
from vk_provider.pods.podspec import Container, Pod, app_containers, init_containers, is_sidecar

QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]

_COMPUTE = ("cpu", "memory")
_GUARANTEED_SCORE = -997
_BEST_EFFORT_SCORE = 1000


def qos_class(pod: Pod) -> QosClass:
    """Return the class: what the API server recorded, else what follows from the spec."""
    recorded: QosClass | None = (pod.get("status") or {}).get("qosClass")
    return recorded or compute_qos_class(pod)


def compute_qos_class(pod: Pod) -> QosClass:
    """Return the class that follows from requests and limits (ComputePodQOS)."""
    pod_level = pod["spec"].get("resources") or {}
    if pod_level.get("requests") or pod_level.get("limits"):
        parts = [pod_level]
    else:
        every = [*app_containers(pod), *init_containers(pod)]
        parts = [container.get("resources") or {} for container in every]
    requests: dict[str, Fraction] = {}
    limits: dict[str, Fraction] = {}
    guaranteed = True
    for part in parts:
        _add(requests, part.get("requests") or {})
        added = _add(limits, part.get("limits") or {})
        guaranteed = guaranteed and added == set(_COMPUTE)
    if not requests and not limits:
        return "BestEffort"
    if guaranteed and requests == limits:
        return "Guaranteed"
    return "Burstable"


def _add(total: dict[str, Fraction], values: Mapping[str, Any]) -> set[str]:
    added = set()
    for name in _COMPUTE:
        value = parse_quantity(values[name]) if name in values else Fraction(0)
        if value > 0:
            total[name] = total.get(name, Fraction(0)) + value
            added.add(name)
    return added


def oom_score_adj(pod: Pod, container: Container, memory_capacity_bytes: int) -> int:
    """Return the score for a container on a node of that much memory (0: not known).

    A Burstable container is the safer, the larger the share of the node it asked for.
    """
    if pod["spec"].get("priorityClassName") == "system-node-critical":
        return _GUARANTEED_SCORE
    match qos_class(pod):
        case "Guaranteed":
            return _GUARANTEED_SCORE
        case "BestEffort":
            return _BEST_EFFORT_SCORE
    if memory_capacity_bytes <= 0:
        return _BEST_EFFORT_SCORE - 1
    spare = _unassigned_share(pod)
    score = _score(_memory_request(container) + spare, memory_capacity_bytes)
    if is_sidecar(container) and container in init_containers(pod):
        least = min((_memory_request(one) for one in app_containers(pod)), default=0)
        score = min(score, _score(least + spare, memory_capacity_bytes))
    return min(max(score, _BEST_EFFORT_SCORE + _GUARANTEED_SCORE), _BEST_EFFORT_SCORE - 1)


def _score(memory_bytes: int, capacity_bytes: int) -> int:
    return 1000 - 1000 * memory_bytes // capacity_bytes


def _memory_request(container: Container) -> int:
    requests = (container.get("resources") or {}).get("requests") or {}
    return whole(requests.get("memory", 0))


def _unassigned_share(pod: Pod) -> int:
    """Each container's part of the pod-level request that no container asked for."""
    pod_level = (pod["spec"].get("resources") or {}).get("requests") or {}
    if "memory" not in pod_level:
        return 0
    sidecars = [one for one in init_containers(pod) if is_sidecar(one)]
    running = [*app_containers(pod), *sidecars]
    spare = whole(pod_level["memory"]) - sum(map(_memory_request, running))
    return max(spare, 0) // max(len(running), 1)
