"""Resizing in place, as pure rules (kubelet allocation, computePodResizeAction).

What a pod's spec asks for is not what it has: a change is judged first, then given to the pod,
then made in its containers. Only CPU and memory of app containers and sidecars can change. The VM
keeps its size, and with it the bill; what does not fit into it is infeasible.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.quantity import cpu_milli, whole
from vk_provider.pods.annotations import RESOURCES
from vk_provider.pods.pod_state import PodState
from vk_provider.pods.podspec import (
    Container,
    Pod,
    app_containers,
    init_containers,
    is_sidecar,
)
from vk_provider.pods.resources import container_requests

Allocation = Mapping[str, Mapping[str, Any]]
"""Container resources as a spec has them, by container name."""
Change = Literal["none", "update", "restart"]

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pending:
    """Why a pod is not given what it asks for now: `Infeasible` or `Deferred`, and a sentence."""

    reason: Literal["Infeasible", "Deferred"]
    message: str


def resizable(pod: Pod) -> Iterator[Container]:
    """Yield the containers whose resources may change while the pod runs."""
    yield from (c for c in init_containers(pod) if is_sidecar(c))
    yield from app_containers(pod)


def allocation_of(pod: Pod) -> dict[str, Mapping[str, Any]]:
    """Return what the pod's spec asks for."""
    return {str(c["name"]): c.get("resources") or {} for c in resizable(pod)}


def shown_allocation(pod: Pod) -> dict[str, Mapping[str, Any]]:
    """Return what the pod's status shows of what it was given: all that is known of it at first."""
    allocation = allocation_of(pod)
    status = pod.get("status") or {}
    for key in ("initContainerStatuses", "containerStatuses"):
        for shown in status.get(key) or ():
            if shown["name"] in allocation and "resources" in shown:
                allocation[shown["name"]] = shown["resources"]
    return allocation


def noted_allocation(pod: Pod, state: PodState) -> dict[str, Mapping[str, Any]]:
    """Return what the notes of an earlier process say that the pod's containers were given.

    A change that was given and is noted nowhere yet is judged again.
    """
    found: dict[str, Mapping[str, Any]] = {}
    sandbox = state.sandbox
    if sandbox is not None and RESOURCES in sandbox.annotations:
        found |= json.loads(sandbox.annotations[RESOURCES])
    for container in resizable(pod):
        run = state.latest(str(container["name"]))
        if run is not None and RESOURCES in run.annotations:
            found[str(container["name"])] = json.loads(run.annotations[RESOURCES])
    return found


def allocation_note(pod: Pod) -> str:
    """Return the note of what a pod's containers have been given, for `noted_allocation`."""
    return json.dumps(allocation_of(pod))


def with_allocation(pod: Pod, allocation: Allocation) -> Pod:
    """Return the pod with those resources in place of its own, or the same object."""
    if not differs(pod, allocation):
        return pod
    changed = {**pod, "spec": copy.deepcopy(dict(pod["spec"]))}
    for container in resizable(changed):
        given = allocation.get(str(container["name"]))
        if given is not None:
            assert isinstance(container, dict)
            container["resources"] = given
    return changed


def differs(pod: Pod, allocation: Allocation) -> bool:
    """Say whether the pod asks for another amount of CPU or memory than it was given."""
    return any(
        figures(c.get("resources")) != figures(allocation[str(c["name"])])
        for c in resizable(pod)
        if str(c["name"]) in allocation
    )


def figures(resources: Mapping[str, Any] | None) -> dict[str, list[int]]:
    """Return the request and the limit of what can be resized: thousandths of a CPU, and bytes."""
    of = resources or {}
    requests, limits = of.get("requests") or {}, of.get("limits") or {}
    return {
        "cpu": [cpu_milli(requests.get("cpu", 0)), cpu_milli(limits.get("cpu", 0))],
        "memory": [whole(requests.get("memory", 0)), whole(limits.get("memory", 0))],
    }


def resources_note(container: Container) -> str:
    """Return the note of what a run has, for `change` to read (kubelet's actuated resources)."""
    return json.dumps(container.get("resources") or {})


def change(container: Container, run: pb.ContainerStatus) -> Change:
    """Return what a running container needs to have what it was given."""
    noted = run.annotations.get(RESOURCES)
    wanted = figures(container.get("resources"))
    if noted is None:
        return "update"  # made before there were such notes
    has = figures(json.loads(noted))
    changed = {name for name in wanted if wanted[name] != has[name]}
    if not changed:
        return "none"
    for policy in container.get("resizePolicy") or ():
        if policy["resourceName"] in changed and policy["restartPolicy"] == "RestartContainer":
            return "restart"
    return "update"


def in_progress(pod: Pod, state: PodState) -> bool:
    """Say whether a running container has not yet what its pod was given."""
    runs = ((c, state.latest_active(str(c["name"]))) for c in resizable(pod))
    return any(
        run is not None and run.state == pb.CONTAINER_RUNNING and change(container, run) != "none"
        for container, run in runs
    )


def beyond_vm(wanted: Pod, given: Pod, sandbox: pb.SandboxStatus | None) -> Pending | None:
    """Return why a resize can't be had from the pod's VM, which has the size that it has.

    A pod that had more than its VM from the beginning may keep that, and ask for less.
    """
    if sandbox is None or sandbox.state == pb.SANDBOX_NOT_READY or not sandbox.shape.cpu_milli:
        return None  # the next VM is made for what the pod has then
    shape = sandbox.shape
    for name, asked, had, most, unit in (
        ("cpu", _claims(wanted, "cpu"), _claims(given, "cpu"), shape.cpu_milli, "m"),
        ("memory", _claims(wanted, "memory"), _claims(given, "memory"), shape.memory_bytes, ""),
    ):
        if asked > most and asked > had:
            size = f"{shape.cpu_milli / 1000:g} CPU and {shape.memory_bytes // _MIB}Mi"
            return Pending(
                "Infeasible",
                f"the pod's VM has {size}, and keeps that: {name}, requested: {asked}{unit}, "
                f"capacity: {most}{unit}; create the pod anew for a larger VM",
            )
    return None


def _claims(pod: Pod, name: Literal["cpu", "memory"]) -> int:
    """Return the larger of the sum of requests and the largest single limit (the shape rule)."""
    total = container_requests(pod).get(name, 0) * (1000 if name == "cpu" else 1)
    limits = [figures(c.get("resources"))[name][1] for c in resizable(pod)]
    return max(int(total), *limits, 0)


def summary(pod: Pod, generation: int, error: str = "") -> str:
    """Return the resources of all containers as events tell them (events/resize.go)."""
    told: dict[str, Any] = {}
    for key, containers in (
        ("initContainers", init_containers(pod)),
        ("containers", app_containers(pod)),
    ):
        if containers:
            told[key] = [
                {"name": c["name"], "resources": dict(sorted((c.get("resources") or {}).items()))}
                for c in containers
            ]
    told["generation"] = generation
    if error:
        told["error"] = error
    return json.dumps(told, separators=(",", ":"))
