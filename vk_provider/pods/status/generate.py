"""A pod's whole status from the facts (kubelet generateAPIPodStatus, mergePodStatus)."""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vk_provider.pods.pod_state import EXIT_CODE_UNKNOWN, REASON_STATUS_UNKNOWN
from vk_provider.pods.podspec import Container, app_containers, init_containers, is_sidecar
from vk_provider.pods.status.conditions import make_conditions
from vk_provider.pods.status.containers import Facts, Kind, make_container_statuses
from vk_provider.pods.status.phase import get_phase, is_terminal
from vk_provider.pods.status.times import to_api

PodStatus = dict[str, Any]
FOREIGN = ("nominatedNodeName", "resourceClaimStatuses", "extendedResourceClaimStatus", "qosClass")
"""What others own in a status, and is only carried along."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision about the pod as a whole that outranks what its containers say."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class StatusInput:
    """What a status is made from.

    `old` is the status last written, or the API's. `settled`: nothing of the pod runs or will run
    again, so a terminal phase may be told. `ending`: it is on its way there, and keeps its
    addresses, though its sandbox has gone. `host_ips`: the node's, the preferred one first.
    """

    facts: Facts
    old: Mapping[str, Any]
    host_ips: Sequence[str]
    now_ns: int
    ending: bool = False
    settled: bool = False
    verdict: Verdict | None = None
    resize: Sequence[Mapping[str, Any]] = ()
    """The conditions of a resize that are in force."""


def make_status(given: StatusInput) -> PodStatus:
    """Return the status to show."""
    pod, old, state = given.facts.pod, given.old, given.facts.state
    status: PodStatus = {key: old[key] for key in FOREIGN if key in old}
    _container_statuses(given, status)
    both = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
    started = {c.name for c in state.active}
    initialized = any(str(c["name"]) in started for c in app_containers(pod))
    phase: str = get_phase(pod, both, terminated=given.settled, initialized=initialized)
    old_phase = str(old.get("phase") or "Pending")
    if given.verdict is not None:
        phase = "Failed"
    if is_terminal(old_phase):
        phase = old_phase
    shown = phase
    if is_terminal(phase) and not given.settled and not is_terminal(old_phase):
        shown = old_phase  # not before everything has ended: others reuse what the pod held
    status["phase"] = shown
    _reason(given, status, old_phase)
    status["conditions"] = make_conditions(
        pod,
        old.get("conditions") or (),
        {str(s["name"]): s for s in both},
        phase,
        state,
        given.now_ns,
        () if is_terminal(phase) else given.resize,
    )
    _addresses(given, status)
    status["startTime"] = old.get("startTime") or to_api(given.now_ns)
    if pod["metadata"].get("generation"):
        status["observedGeneration"] = pod["metadata"]["generation"]
    return status


def make_terminated_status(given: StatusInput) -> PodStatus:
    """Return the last status of a pod of which nothing is left to observe (TerminatePod).

    Whatever has no end on record ended in an unknown way, and the phase is terminal.
    """
    status = make_status(given)
    initialized = _has_initialized(given)
    lost = {
        "exitCode": EXIT_CODE_UNKNOWN,
        "reason": REASON_STATUS_UNKNOWN,
        "message": "The container could not be located when the pod was terminated",
    }
    if initialized:
        _end(status["containerStatuses"], lost)
    begun = status.get("initContainerStatuses", [])
    while len(begun) > 1 and "waiting" in begun[-1]["state"] and not begun[-1]["lastState"]:
        begun = begun[:-1]
    _end(begun, lost)
    if not is_terminal(status["phase"]):
        status["phase"] = "Failed"
        statuses = {
            str(s["name"]): s
            for s in [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
        }
        status["conditions"] = make_conditions(
            given.facts.pod,
            status["conditions"],
            statuses,
            "Failed",
            given.facts.state,
            given.now_ns,
        )
    return status


def make_rejected_status(old: Mapping[str, Any], verdict: Verdict, now_ns: int) -> PodStatus:
    """Return the status of a pod that this node refuses (kubelet rejectPod)."""
    kept = {key: old[key] for key in (*FOREIGN, "conditions") if key in old}
    return {
        **kept,
        "phase": "Failed",
        "reason": verdict.reason,
        "message": f"Pod was rejected: {verdict.message}",
        "startTime": old.get("startTime") or to_api(now_ns),
    }


def _container_statuses(given: StatusInput, status: PodStatus) -> None:
    pod, old = given.facts.pod, given.old
    ephemeral = list(pod["spec"].get("ephemeralContainers") or ())
    groups: tuple[tuple[str, list[Container], Kind], ...] = (
        ("containerStatuses", app_containers(pod), "app"),
        ("initContainerStatuses", init_containers(pod), "init"),
        ("ephemeralContainerStatuses", ephemeral, "ephemeral"),
    )
    for key, containers, kind in groups:
        if containers:
            known = old.get(key) or ()
            status[key] = make_container_statuses(given.facts, containers, known, kind)


def _reason(given: StatusInput, status: PodStatus, old_phase: str) -> None:
    """The reason belongs to the phase: it is kept as long as the phase is."""
    source: Mapping[str, Any] = given.old if status["phase"] == old_phase else {}
    reason, message = source.get("reason"), source.get("message")
    if given.verdict is not None and status["phase"] == "Failed":
        reason, message = given.verdict.reason, given.verdict.message
    if reason:
        status["reason"] = reason
    if message:
        status["message"] = message


def _addresses(given: StatusInput, status: PodStatus) -> None:
    if given.host_ips:
        status["hostIP"] = given.host_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in given.host_ips[:2]]
    sandbox = given.facts.state.ready_sandbox
    if sandbox is not None:
        ips = primary_ips(sandbox.ips, given.host_ips)
    elif given.ending or given.settled:
        ips = [str(entry["ip"]) for entry in given.old.get("podIPs") or ()]
    else:
        ips = []
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": ip} for ip in ips]


def primary_ips(ips: Sequence[str], host_ips: Sequence[str]) -> list[str]:
    """Return one address of each family, that of the node's first address first.

    What is no address is passed over: the status is for addresses, and shows none rather.
    """
    preferred = ipaddress.ip_address(host_ips[0]).version if host_ips else 4
    found: dict[int, str] = {}
    for text in ips:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        found.setdefault(address.version, str(address))
    order = (preferred, 6 if preferred == 4 else 4)
    return [found[version] for version in order if version in found]


def _has_initialized(given: StatusInput) -> bool:
    """Say whether an app container ever was, or could have been, started."""
    pod, old = given.facts.pod, given.old
    inits = init_containers(pod)
    if not inits:
        return True
    if any(
        s.get("lastState") or "waiting" not in s["state"]
        for s in old.get("containerStatuses") or ()
    ):
        return True
    last = next(
        (s for s in old.get("initContainerStatuses") or () if s["name"] == inits[-1]["name"]), None
    )
    if last is None:
        return False
    if is_sidecar(inits[-1]):
        return "running" in last["state"] and bool(last.get("started"))
    ends = (last[key].get("terminated") for key in ("state", "lastState") if last.get(key))
    return any(end is not None and end["exitCode"] == 0 for end in ends)


def _end(statuses: Sequence[dict[str, Any]], lost: Mapping[str, Any]) -> None:
    for status in statuses:
        if "terminated" not in status["state"]:
            status["state"] = {"terminated": copy.copy(dict(lost))}
            status["ready"] = status["started"] = False
