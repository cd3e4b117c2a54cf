"""Changing what a running container may use."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.context import Context
from vk_provider.agent.guest_calls import CALL_S, ask
from vk_provider.agent.oci import linux_resources
from vk_provider.common.errors import FailedPrecondition, Unavailable

_PAGE = 4096


async def update_resources(
    context: Context,
    container_id: str,
    resources: pb.LinuxResources,
    annotations: Mapping[str, str],
) -> pb.ContainerStatus:
    """Set new limits; the answer's are read back from the guest's cgroup."""
    container = context.container(container_id)
    if container.record.exited:
        raise FailedPrecondition(f"container {container_id} has exited")
    answer = await ask(
        container.sandbox.guest().control.UpdateContainer(
            guest_pb2.UpdateContainerRequest(
                container_id=container_id,
                resources_json=orjson.dumps(linux_resources(resources)).decode(),
            ),
            timeout=CALL_S,
        ),
        f"changing the limits of container {container_id}",
    )
    status = container.record.status
    status.resources.CopyFrom(_read_back(resources, answer.resources_json))
    status.annotations.update(annotations)
    context.save_container(container)
    context.container_changed(container)
    return container.status()


def _read_back(wanted: pb.LinuxResources, text: str) -> pb.LinuxResources:
    """Return the limits that the guest read back; what it does not say is as wanted."""
    found = pb.LinuxResources()
    found.CopyFrom(wanted)
    try:
        told = orjson.loads(text) if text else {}
        cpu, memory = told.get("cpu") or {}, told.get("memory") or {}
        if "quota" in cpu:
            found.cpu_quota_us = max(0, int(cpu["quota"]))
        if "period" in cpu:
            found.cpu_period_us = max(0, int(cpu["period"]))
        if "limit" in memory:
            limit = max(0, int(memory["limit"]))
            # The kernel counts whole pages; that is no other limit than was asked for.
            if limit != wanted.memory_limit_bytes // _PAGE * _PAGE:
                found.memory_limit_bytes = limit
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError) as exc:
        raise Unavailable(f"the guest read back limits that make no sense: {text[:200]!r}") from exc
    return found
