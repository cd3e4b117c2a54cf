"""A pod's conditions (kubelet status/generate.go)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.pod_state import PodState
from vk_provider.pods.podspec import Container, Pod, app_containers, init_containers, is_sidecar
from vk_provider.pods.status.times import to_api

Condition = dict[str, Any]
Statuses = Mapping[str, Mapping[str, Any]]

RESIZE = ("PodResizePending", "PodResizeInProgress")
"""The types that are there only while there is something to say (`resizing`)."""
OWN = (
    *RESIZE,
    *("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"),
)
"""The types that the kubelet owns, in the order in which it writes them."""


def make_conditions(
    pod: Pod,
    old: Sequence[Mapping[str, Any]],
    statuses: Statuses,
    phase: str,
    state: PodState,
    now_ns: int,
    resize: Sequence[Mapping[str, Any]] = (),
) -> list[Condition]:
    """Return others' conditions as they are, then the kubelet's own as of now.

    `resize` are those of a resize, which are there or not.

    `old` are the conditions in force: a transition's time changes only when the status does.
    `statuses` are those of init and app containers by name.
    """
    others = [dict(c) for c in old if c["type"] not in OWN]
    ready = containers_ready(pod, statuses, phase)
    made = {
        "PodReadyToStartContainers": _ready_to_start(state),
        "Initialized": _initialized(pod, statuses, phase),
        "Ready": _with_gates(pod, ready, others),
        "ContainersReady": ready,
        "PodScheduled": _condition(True),
    }
    before = {str(c["type"]): c for c in old}
    generation = pod["metadata"].get("generation")
    own: list[Condition] = []
    for type_, what in made.items():
        condition: Condition = {"type": type_, **what}
        if generation:
            condition["observedGeneration"] = generation
        previous = before.get(type_)
        same = previous is not None and previous["status"] == condition["status"]
        condition["lastTransitionTime"] = (
            previous.get("lastTransitionTime") if same and previous else None
        ) or to_api(now_ns)
        own.append(condition)
    return [*others, *map(dict, resize), *own]


def containers_ready(pod: Pod, statuses: Statuses, phase: str) -> Condition:
    """Return ContainersReady: every app container and sidecar is ready."""
    if phase == "Failed":
        return _condition(False, "PodFailed")
    unknown, unready = [], []
    sidecars = [c for c in init_containers(pod) if is_sidecar(c)]
    for container in [*sidecars, *app_containers(pod)]:
        status = statuses.get(str(container["name"]))
        if status is None:
            unknown.append(str(container["name"]))
        elif not status.get("ready"):
            unready.append(str(container["name"]))
    if phase == "Succeeded" and not unknown:
        return _condition(False, "PodCompleted")
    message = _lists(("unknown", unknown), ("unready", unready))
    return _condition(False, "ContainersNotReady", message) if message else _condition(True)


def _with_gates(pod: Pod, ready: Condition, others: Sequence[Condition]) -> Condition:
    if ready["status"] != "True":
        return dict(ready)
    found = {str(c["type"]): str(c["status"]) for c in others}
    missing = []
    for gate in pod["spec"].get("readinessGates") or ():
        type_ = str(gate["conditionType"])
        if type_ not in found:
            missing.append(
                f'corresponding condition of pod readiness gate "{type_}" does not exist.'
            )
        elif found[type_] != "True":
            missing.append(
                f'the status of pod readiness gate "{type_}" is not "True", but {found[type_]}'
            )
    if missing:
        return _condition(False, "ReadinessGatesNotReady", ", ".join(missing))
    return _condition(True)


def _initialized(pod: Pod, statuses: Statuses, phase: str) -> Condition:
    unknown, incomplete = [], []
    for container in init_containers(pod):
        status = statuses.get(str(container["name"]))
        if status is None:
            unknown.append(str(container["name"]))
        elif not _init_done(container, status):
            incomplete.append(str(container["name"]))
    if phase == "Succeeded" and not unknown:
        return _condition(True, "PodCompleted")
    if any(_was_started(statuses.get(str(c["name"]))) for c in app_containers(pod)):
        return _condition(True)  # once initialized, a sidecar's restart does not undo it
    message = _lists(("unknown", unknown), ("incomplete", incomplete))
    return _condition(False, "ContainersNotInitialized", message) if message else _condition(True)


def _init_done(container: Container, status: Mapping[str, Any]) -> bool:
    return bool(status.get("started" if is_sidecar(container) else "ready"))


def _was_started(status: Mapping[str, Any] | None) -> bool:
    return status is not None and bool({"running", "terminated"} & status["state"].keys())


def _ready_to_start(state: PodState) -> Condition:
    sandbox = state.sandbox
    if sandbox is None:
        message = "no pod sandbox exists"
    elif sum(s.state == pb.SANDBOX_READY for s in state.sandboxes) > 1:
        message = "multiple pod sandboxes are ready and need to be reconciled"
    elif sandbox.state != pb.SANDBOX_READY:
        message = "pod sandbox is not ready"
    else:
        return _condition(True)
    return _condition(False, "PodSandboxNotReady", message)


def _lists(*groups: tuple[str, list[str]]) -> str:
    return ", ".join(
        f"containers with {what} status: [{' '.join(names)}]" for what, names in groups if names
    )


def _condition(status: bool, reason: str = "", message: str = "") -> Condition:
    condition: Condition = {"status": "True" if status else "False"}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition
