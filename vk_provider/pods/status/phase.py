"""A pod's phase from the statuses of its containers (kubelet getPhase)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vk_provider.pods.podspec import Container, Pod, app_containers, init_containers, is_sidecar
from vk_provider.pods.restart import restarts_after_exit

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]
Status = Mapping[str, Any]


def is_terminal(phase: str) -> bool:
    """Say whether a pod in this phase stays in it."""
    return phase in {"Succeeded", "Failed"}


@dataclass(slots=True)
class _Count:
    pending_init: int = 0
    pending_sidecars: int = 0
    failed_init: int = 0
    unknown: int = 0
    running: int = 0
    waiting: int = 0
    stopped: int = 0
    stopped_for_good: int = 0
    succeeded: int = 0


def get_phase(
    pod: Pod, statuses: Sequence[Status], *, terminated: bool, initialized: bool
) -> Phase:
    """Return the phase.

    `statuses` are those of init and app containers. `terminated`: nothing of the pod will be
    started again, whatever the policies say. `initialized`: an app container was started in the
    present sandbox, so that a sidecar's restart does not set the pod back.
    """
    by_name = {str(s["name"]): s for s in statuses}
    count = _Count()
    for container in init_containers(pod):
        status = by_name.get(str(container["name"]))
        if is_sidecar(container):
            _count_sidecar(status, count)
        else:
            _count_init(container, pod, status, count)
    for container in app_containers(pod):
        _count_app(container, pod, by_name.get(str(container["name"])), count)
    return _phase_of(count, terminated=terminated, initialized=initialized)


def _phase_of(count: _Count, *, terminated: bool, initialized: bool) -> Phase:
    if count.failed_init:
        return "Failed"
    if count.pending_init or (count.pending_sidecars and not initialized) or count.waiting:
        return "Pending"
    if count.unknown:
        return "Pending"
    if count.running:
        return "Running"
    if not count.stopped:
        return "Pending"
    if not terminated and count.stopped != count.stopped_for_good:
        return "Running"  # something is about to be restarted
    return "Succeeded" if count.stopped == count.succeeded else "Failed"


def _count_init(container: Container, pod: Pod, status: Status | None, count: _Count) -> None:
    state = status["state"] if status else {}
    ended = state.get("terminated")
    if "waiting" in state and status is not None:
        ended = status.get("lastState", {}).get("terminated")
    if ended is None:
        count.pending_init += 1
    elif ended["exitCode"] != 0 and not restarts_after_exit(container, pod, ended["exitCode"]):
        count.failed_init += 1


def _count_sidecar(status: Status | None, count: _Count) -> None:
    if status is None:
        count.unknown += 1
        return
    state = status["state"]
    if "running" in state:
        count.pending_sidecars += 0 if status.get("started") else 1
        count.running += 1
    elif "waiting" in state and "terminated" not in status.get("lastState", {}):
        count.pending_sidecars += 1
        count.waiting += 1


def _count_app(container: Container, pod: Pod, status: Status | None, count: _Count) -> None:
    if status is None:
        count.unknown += 1
        return
    state = status["state"]
    if "running" in state:
        count.running += 1
        return
    ended = state.get("terminated")
    if ended is not None:
        count.succeeded += 1 if ended["exitCode"] == 0 else 0
    else:
        ended = status.get("lastState", {}).get("terminated")
    if ended is None:
        count.waiting += 1
        return
    count.stopped += 1
    if not restarts_after_exit(container, pod, ended["exitCode"]):
        count.stopped_for_good += 1
