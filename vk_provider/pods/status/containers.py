"""The statuses of a pod's containers (kubelet convertToAPIContainerStatuses)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.actions import ProbeResults
from vk_provider.pods.planner import any_app_container_created
from vk_provider.pods.pod_state import EXIT_CODE_UNKNOWN, REASON_STATUS_UNKNOWN, PodState
from vk_provider.pods.podspec import Container, Pod, init_containers, is_sidecar
from vk_provider.pods.restart import is_deleted, should_start
from vk_provider.pods.status.reported_resources import reported_resources
from vk_provider.pods.status.times import to_api
from vk_provider.runtime.ids import status_container_id

Status = dict[str, Any]
Kind = Literal["app", "init", "ephemeral"]
_MESSAGES_PER_POD_BYTES = 12 * 1024
_RUNS = 2  # the present one and the last one


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container can't be started just now."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What container statuses are made from. Messages are by container id."""

    pod: Pod
    state: PodState
    probes: ProbeResults = field(default_factory=ProbeResults)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    messages: Mapping[str, str] = field(default_factory=dict)


def make_container_statuses(
    facts: Facts, containers: Sequence[Container], old: Sequence[Mapping[str, Any]], kind: Kind
) -> list[Status]:
    """Return the statuses of the given containers, init ones in their order, others by name."""
    before = {str(s["name"]): s for s in old}
    made = []
    for container in containers:
        name = str(container["name"])
        status = _observed(facts, container, before.get(name))
        _tell_waiting(facts, container, status, init=kind == "init")
        if kind != "ephemeral":  # probes and readiness are not for them
            _tell_probes(facts, container, status, before.get(name), init=kind == "init")
        _bound_messages(facts.pod, status)
        made.append(status)
    return made if kind == "init" else sorted(made, key=lambda s: str(s["name"]))


def _observed(facts: Facts, container: Container, old: Mapping[str, Any] | None) -> Status:
    runs = facts.state.history(str(container["name"]))[:_RUNS]
    if not runs:
        return _without_runs(facts.pod, container, old)
    status = _of_run(facts, container, runs[0])
    if len(runs) == _RUNS:
        status["lastState"] = _state_of(facts, runs[1])
    elif old is not None and old.get("lastState"):
        status["lastState"] = dict(old["lastState"])  # its record is gone, what is known stays
    return status


def _without_runs(pod: Pod, container: Container, old: Mapping[str, Any] | None) -> Status:
    """There is no record: it was never started, or the record was lost."""
    if old is not None and "terminated" in old["state"]:
        return dict(old)
    status: Status = {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "restartCount": 0,
        "ready": False,
        "started": False,
        "state": {"waiting": {"reason": _first_reason(pod)}},
        "lastState": {},
        **_mounts(container),
    }
    if old is None:
        return status
    status["restartCount"] = old.get("restartCount", 0)
    status["lastState"] = dict(old.get("lastState") or {})
    if "running" in old["state"] and "terminated" not in status["lastState"]:
        # It ran, and how it ended is not known: never show that as "has not been started".
        status["lastState"] = {
            "terminated": {
                "exitCode": EXIT_CODE_UNKNOWN,
                "reason": REASON_STATUS_UNKNOWN,
                "message": "The container could not be located when the pod was deleted.  "
                "The container used to be Running",
            }
        }
        status["restartCount"] += 0 if is_deleted(pod) else 1
    return status


def _of_run(facts: Facts, container: Container, run: pb.ContainerStatus) -> Status:
    status: Status = {
        "name": run.name,
        "image": run.image or container.get("image", ""),
        "imageID": run.image_digest or run.image_ref,
        "containerID": status_container_id(run.container_id),
        "restartCount": run.attempt,
        "ready": False,
        "started": False,
        "state": _state_of(facts, run),
        "lastState": {},
        "resources": reported_resources(container, run),
        **_mounts(container),
    }
    requests = (container.get("resources") or {}).get("requests")
    if requests:
        status["allocatedResources"] = dict(requests)
    signal = (container.get("lifecycle") or {}).get("stopSignal")
    if signal:
        status["stopSignal"] = signal
    if run.state in {pb.CONTAINER_RUNNING, pb.CONTAINER_EXITED} and run.started_at_ns:
        linux: Status = {"uid": run.run_as_user, "gid": run.run_as_group}
        if run.supplemental_groups:
            linux["supplementalGroups"] = list(run.supplemental_groups)
        status["user"] = {"linux": linux}
    return status


def _state_of(facts: Facts, run: pb.ContainerStatus) -> Status:
    if run.state == pb.CONTAINER_RUNNING:
        return {"running": {"startedAt": to_api(run.started_at_ns)}}
    if run.state != pb.CONTAINER_EXITED:
        return {"waiting": {"reason": _first_reason(facts.pod)}}
    ended: Status = {
        "exitCode": run.exit_code,
        "reason": run.reason or ("Error" if run.exit_code else "Completed"),
        "containerID": status_container_id(run.container_id),
    }
    message = facts.messages.get(run.container_id, run.message)
    if message:
        ended["message"] = message
    if run.started_at_ns:
        ended["startedAt"] = to_api(run.started_at_ns)
    if run.finished_at_ns:
        ended["finishedAt"] = to_api(run.finished_at_ns)
    return {"terminated": ended}


def _tell_waiting(facts: Facts, container: Container, status: Status, *, init: bool) -> None:
    """A container that is to be started, and can't be just now, is shown as waiting, and why."""
    name = str(container["name"])
    latest = facts.state.latest(name)
    if init:
        if latest is not None and latest.state == pb.CONTAINER_EXITED and latest.exit_code == 0:
            return
        done = latest is None and any_app_container_created(facts.pod, facts.state)
        if done and not is_sidecar(container) and "waiting" in status["state"]:
            status["state"] = {
                "terminated": {
                    "exitCode": 0,
                    "reason": "Completed",
                    "message": "Unable to get init container status from container runtime and "
                    "pod has been initialized, treat it as exited normally",
                }
            }
            return
    waiting = facts.waiting.get(name)
    if waiting is None or not should_start(container, facts.pod, facts.state):
        return
    if "terminated" in status["state"]:
        status["lastState"] = status["state"]
    shown = {"reason": waiting.reason}
    if waiting.message:
        shown["message"] = waiting.message
    status["state"] = {"waiting": shown}


def _tell_probes(
    facts: Facts,
    container: Container,
    status: Status,
    old: Mapping[str, Any] | None,
    *,
    init: bool,
) -> None:
    """Set `started` and `ready` (kubelet prober UpdatePodStatus).

    What the API says of the same run holds until a probe has answered: a restart of the node
    must not make a ready pod unready.
    """
    if "running" not in status["state"]:
        ended = status["state"].get("terminated")
        completed = ended is not None and ended["exitCode"] == 0
        status["ready"] = init and not is_sidecar(container) and completed
        return
    run_id = str(status["containerID"]).partition("://")[2]
    known = old if old is not None and old.get("containerID") == status["containerID"] else {}
    started = facts.probes.startup.get(run_id)
    if started is None:
        started = not container.get("startupProbe") or bool(known.get("started"))
    status["started"] = started
    if not started or (init and not is_sidecar(container)):
        return
    ready = facts.probes.readiness.get(run_id)
    if ready is None:
        ready = not container.get("readinessProbe") or bool(known.get("ready"))
    status["ready"] = ready


def _mounts(container: Container) -> Status:
    mounts = []
    for mount in container.get("volumeMounts") or ():
        shown: Status = {"name": mount["name"], "mountPath": mount["mountPath"]}
        if mount.get("readOnly"):
            shown["readOnly"] = True
            wanted = mount.get("recursiveReadOnly") in {"Enabled", "IfPossible"}
            shown["recursiveReadOnly"] = "Enabled" if wanted else "Disabled"
        mounts.append(shown)
    return {"volumeMounts": mounts} if mounts else {}


def _first_reason(pod: Pod) -> str:
    return "PodInitializing" if init_containers(pod) else "ContainerCreating"


def _bound_messages(pod: Pod, status: Status) -> None:
    """Share the pod's room for termination messages evenly among its containers."""
    spec = pod["spec"]
    count = sum(
        len(spec.get(key) or ()) for key in ("containers", "initContainers", "ephemeralContainers")
    )
    limit = _MESSAGES_PER_POD_BYTES // max(count, 1)
    for key in ("state", "lastState"):
        ended = status[key].get("terminated")
        if ended is not None and len(str(ended.get("message", "")).encode()) > limit:
            cut = str(ended["message"]).encode()[:limit].decode(errors="ignore")
            status[key] = {"terminated": {**ended, "message": cut}}
