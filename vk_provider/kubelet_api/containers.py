"""Finding a container of a pod, and the run of it that a request means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vk_provider.common.errors import FailedPrecondition

Pod = Mapping[str, Any]

_SPECS = ("containers", "initContainers", "ephemeralContainers")
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
_WAITING = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


def container_spec(pod: Pod, name: str) -> Mapping[str, Any] | None:
    """Return the spec of a container of any kind."""
    return next((each for each in _all(pod.get("spec"), _SPECS) if each.get("name") == name), None)


def container_status(pod: Pod, name: str) -> Mapping[str, Any] | None:
    """Return the status of a container of any kind."""
    found = _all(pod.get("status"), _STATUSES)
    return next((each for each in found if each.get("name") == name), None)


def container_statuses(pod: Pod) -> Iterator[Mapping[str, Any]]:
    """Yield the statuses of all containers."""
    return _all(pod.get("status"), _STATUSES)


def is_running(pod: Pod, name: str) -> bool:
    """Tell whether a container runs now."""
    status = container_status(pod, name)
    return status is not None and bool((status.get("state") or {}).get("running") is not None)


def log_container_id(pod: Pod, name: str, previous: bool) -> str:
    """Return the id of the run whose log is meant: the kubelet's validateContainerLogStatus.

    Raises FailedPrecondition, with the kubelet's words, where there is none.
    """
    named = f'container "{name}" in pod "{pod["metadata"]["name"]}"'
    status = container_status(pod, name)
    if status is None:
        raise FailedPrecondition(f"{named} is not available")
    state = status.get("state") or {}
    terminated = state.get("terminated")
    last_id = _id((status.get("lastState") or {}).get("terminated"))
    if previous:
        if not last_id:
            raise FailedPrecondition(f"previous terminated {named} not found")
        return last_id
    if state.get("running") is not None:
        return _id(status)
    if terminated is not None or (status.get("lastState") or {}).get("terminated") is not None:
        found = _id(terminated) or last_id
        if not found:
            raise FailedPrecondition(f"{named} is terminated")
        return found
    waiting = state.get("waiting")
    if waiting is None:
        raise FailedPrecondition(f"{named} is waiting to start - no logs yet")
    reason = str(waiting.get("reason") or "")
    raise FailedPrecondition(f"{named} is waiting to start: {_WAITING.get(reason, reason)}")


def _id(holder: Mapping[str, Any] | None) -> str:
    """Return the id in a `containerID`, which is SCHEME://ID."""
    return str((holder or {}).get("containerID") or "").partition("://")[2]


def _all(holder: Mapping[str, Any] | None, names: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    for name in names:
        yield from (holder or {}).get(name) or ()
