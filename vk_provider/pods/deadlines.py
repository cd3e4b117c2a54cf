"""Times that follow from a pod's spec: its grace, and the end of its activity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vk_provider.pods.podspec import Pod
from vk_provider.pods.status.times import from_api

_NS = 1_000_000_000
_DEFAULT_GRACE_S = 30
_LEAST_GRACE_S = 1
_LEAST_GRACE_AFTER_RESTART_S = 2


def grace_s(pod: Pod) -> float:
    """Return how long the pod's containers get to end (kubelet calculateEffectiveGracePeriod)."""
    seconds = pod["metadata"].get("deletionGracePeriodSeconds")
    if seconds is None:
        seconds = pod["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S)
    return float(max(seconds, _LEAST_GRACE_S))


def remaining_grace_s(pod: Pod, now_ns: int) -> float:
    """Return what is left of the grace of a pod that was deleted while nobody was here.

    Its deletionTimestamp is when the grace is over.
    """
    stamp = pod["metadata"].get("deletionTimestamp")
    if not stamp:
        return grace_s(pod)
    left = (from_api(str(stamp)) - now_ns) / _NS
    return min(grace_s(pod), max(left, _LEAST_GRACE_AFTER_RESTART_S))


def active_until_ns(pod: Pod, status: Mapping[str, Any]) -> int:
    """Return when activeDeadlineSeconds is over (wall time); 0 for never."""
    seconds = pod["spec"].get("activeDeadlineSeconds")
    start = status.get("startTime")
    if seconds is None or not start:
        return 0
    return from_api(str(start)) + int(seconds) * _NS
