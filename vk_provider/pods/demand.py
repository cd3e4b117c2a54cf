"""What a pod's containers ask for, as the agent's shape rule reads it."""

from __future__ import annotations

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.amounts import bounded_milli, bounded_whole
from vk_provider.pods.podspec import (
    Container,
    Pod,
    app_containers,
    init_containers,
    is_sidecar,
)


def container_demand(pod: Pod) -> list[pb.ContainerDemand]:
    """Return one entry a container, in the order of the spec, init containers first.

    Pod-level resources stand for all containers together: the first app container carries them,
    and the others ask for nothing of that resource.
    """
    demand = [
        _one(
            container,
            pb.ContainerDemand.SIDECAR if is_sidecar(container) else pb.ContainerDemand.INIT,
        )
        for container in init_containers(pod)
    ]
    apps = [_one(container, pb.ContainerDemand.APP) for container in app_containers(pod)]
    pod_level = pod["spec"].get("resources") or {}
    requests, limits = pod_level.get("requests") or {}, pod_level.get("limits") or {}
    if "cpu" in requests or "cpu" in limits:
        for entry in (*demand, *apps):
            entry.cpu_request_milli = entry.cpu_limit_milli = 0
        apps[0].cpu_request_milli = bounded_milli(requests.get("cpu", 0))
        apps[0].cpu_limit_milli = bounded_milli(limits.get("cpu", 0))
    if "memory" in requests or "memory" in limits:
        for entry in (*demand, *apps):
            entry.memory_request_bytes = entry.memory_limit_bytes = 0
        apps[0].memory_request_bytes = bounded_whole(requests.get("memory", 0))
        apps[0].memory_limit_bytes = bounded_whole(limits.get("memory", 0))
    return demand + apps


def _one(container: Container, kind: pb.ContainerDemand.Kind.ValueType) -> pb.ContainerDemand:
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    return pb.ContainerDemand(
        kind=kind,
        cpu_request_milli=bounded_milli(requests.get("cpu", 0)),
        cpu_limit_milli=bounded_milli(limits.get("cpu", 0)),
        memory_request_bytes=bounded_whole(requests.get("memory", 0)),
        memory_limit_bytes=bounded_whole(limits.get("memory", 0)),
    )
