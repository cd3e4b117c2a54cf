"""The Node's conditions, worded as a kubelet's (nodestatus/setters.go); no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb

Condition = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Transition:
    """A condition changed: the reason of the event that says so."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Pressure:
    type: str
    reason: str
    message: str
    calm_reason: str
    calm_message: str
    event: str
    calm_event: str


_PRESSURES = (
    _Pressure(
        "MemoryPressure",
        "KubeletHasInsufficientMemory",
        "kubelet has insufficient memory available",
        "KubeletHasSufficientMemory",
        "kubelet has sufficient memory available",
        "NodeHasInsufficientMemory",
        "NodeHasSufficientMemory",
    ),
    _Pressure(
        "DiskPressure",
        "KubeletHasDiskPressure",
        "kubelet has disk pressure",
        "KubeletHasNoDiskPressure",
        "kubelet has no disk pressure",
        "NodeHasDiskPressure",
        "NodeHasNoDiskPressure",
    ),
    _Pressure(
        "PIDPressure",
        "KubeletHasInsufficientPID",
        "kubelet has insufficient PID available",
        "KubeletHasSufficientPID",
        "kubelet has sufficient PID available",
        "NodeHasInsufficientPID",
        "NodeHasSufficientPID",
    ),
)


def make_conditions(
    host: pb.HostInfo | None,
    problem: str,
    previous: Sequence[Mapping[str, Any]],
    now_ns: int,
) -> tuple[list[Condition], list[Transition]]:
    """Return the conditions that are ours, Ready last, and what changed.

    `problem` says why the runtime can't be used, "" when it can. `previous` are the Node's
    conditions as they are; those of others are neither read nor returned. Pressures are told
    only while the agent answers: without it they stay what they were.
    """
    now = rfc3339(now_ns)
    before = {c["type"]: c for c in previous}
    found: list[Condition] = []
    transitions: list[Transition] = []
    reported = {c.type: c for c in host.conditions} if host is not None else {}
    for pressure in _PRESSURES:
        if host is None:
            continue
        said = reported.get(pressure.type)
        high = said is not None and said.status
        reason = pressure.reason if high else pressure.calm_reason
        message = pressure.message if high else pressure.calm_message
        if high and said is not None and said.message:
            message = f"{message}: {said.message}"
        earlier = before.get(pressure.type)
        condition = _condition(pressure.type, high, reason, message, earlier, now)
        found.append(condition)
        if earlier is None or earlier["status"] != condition["status"]:
            transitions.append(Transition(pressure.event if high else pressure.calm_event))
    problem = problem or _network_problem(host)
    ready = _condition(
        "Ready",
        not problem,
        "KubeletNotReady" if problem else "KubeletReady",
        problem or "kubelet is posting ready status",
        before.get("Ready"),
        now,
    )
    found.append(ready)
    earlier = before.get("Ready")
    if earlier is not None and earlier["status"] != ready["status"]:
        transitions.append(Transition("NodeNotReady" if problem else "NodeReady"))
    return found, transitions


def same_conditions(ours: Sequence[Condition], theirs: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the Node says of each of our conditions what we say, heartbeats aside."""
    there = {c["type"]: _without_heartbeat(c) for c in theirs}
    return all(there.get(c["type"]) == _without_heartbeat(c) for c in ours)


def rfc3339(ns: int) -> str:
    """Return a time as metav1.Time: whole seconds, UTC."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _network_problem(host: pb.HostInfo | None) -> str:
    if host is None or host.network_ready:
        return ""
    return (
        "container runtime network not ready: NetworkReady=false "
        f"reason:NetworkPluginNotReady message:{host.network_message}"
    )


def _condition(
    kind: str,
    status: bool,
    reason: str,
    message: str,
    earlier: Mapping[str, Any] | None,
    now: str,
) -> Condition:
    word = "True" if status else "False"
    unchanged = earlier is not None and earlier["status"] == word
    return {
        "type": kind,
        "status": word,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": earlier["lastTransitionTime"] if unchanged and earlier else now,
    }


def _without_heartbeat(condition: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in condition.items() if k != "lastHeartbeatTime"}
