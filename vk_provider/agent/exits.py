"""What guests say of containers' states, taken over into the records."""

from __future__ import annotations

import asyncio

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.context import Context
from vk_provider.agent.guest_words import guest_words
from vk_provider.agent.sandbox import Container, Sandbox

KILLED = 137
_START_FAILED = 128
_STALL_S = 5.0
_MAX_TERMINATION_MESSAGE = 4096
_MAX_ERROR = 4096


def apply_info(context: Context, sandbox: Sandbox, info: guest_pb2.ContainerInfo) -> None:
    """Take over a container's state. What the record is already past is left alone."""
    container = sandbox.containers.get(info.container_id)
    if container is None or container.record.exited or container.finishing is not None:
        return
    if info.state == guest_pb2.RUNNING:
        mark_started(context, container, info.started_at_ns)
    elif info.state == guest_pb2.EXITED:
        if not info.error:
            mark_started(context, container, info.started_at_ns)
        container.finishing = info
        if sandbox.group is not None:
            sandbox.group.create_task(
                _finish(context, container, info), name=f"end of container {container.id}"
            )
        else:
            _exited(context, container, info)


def mark_started(context: Context, container: Container, guest_ns: int) -> None:
    """Record that a container runs. Idempotent."""
    status = container.record.status
    if status.state != pb.CONTAINER_CREATED:
        return
    status.state = pb.CONTAINER_RUNNING
    status.started_at_ns = _plausible(context, guest_ns, status.created_at_ns)
    context.note_container(container)
    context.container_changed(container)


def mark_start_failed(context: Context, container: Container, message: str) -> None:
    """Record that a container's command could not be started: code 128, as CRI runtimes have it."""
    status = container.record.status
    now = context.clock.now_ns()
    status.started_at_ns = status.started_at_ns or now
    _set_exit(
        context, container, _START_FAILED, 0, "StartError", guest_words(message, _MAX_ERROR), now
    )


def mark_killed(context: Context, container: Container, message: str) -> None:
    """Record that a container ended with its VM."""
    if container.record.exited:
        return
    if (info := container.finishing) is not None:
        _exited(context, container, info)  # it had ended before; only its log was on the way
        return
    _set_exit(context, container, KILLED, 9, "Error", message, context.clock.now_ns())


async def _finish(context: Context, container: Container, info: guest_pb2.ContainerInfo) -> None:
    """Wait until the log is complete, or does not come any further, then record the exit.

    One that waits for room on the disk is waited for until somebody wants the container's end:
    with its VM would go what it has said last.
    """
    pump = container.pump
    while pump is not None and not pump.complete.is_set():
        before = pump.progress
        try:
            async with asyncio.timeout(_STALL_S):
                await pump.complete.wait()
        except TimeoutError:
            waits = pump.waits_for_room and container.stop_by is None
            if pump.progress == before and not waits:
                break
    _exited(context, container, info)


def _exited(context: Context, container: Container, info: guest_pb2.ContainerInfo) -> None:
    if info.error:
        mark_start_failed(context, container, info.error)
        return
    status = container.record.status
    finished = _plausible(context, info.finished_at_ns, status.started_at_ns)
    if info.oom_killed:
        reason = "OOMKilled"
    else:
        reason = "Error" if info.exit_code else "Completed"
    status.termination_message = info.termination_message[:_MAX_TERMINATION_MESSAGE]
    _set_exit(context, container, info.exit_code, info.signal, reason, "", finished)


def _set_exit(
    context: Context,
    container: Container,
    code: int,
    signal: int,
    reason: str,
    message: str,
    finished_at_ns: int,
) -> None:
    status = container.record.status
    if container.record.exited:
        return
    status.state = pb.CONTAINER_EXITED
    status.exit_code, status.signal = code, signal
    status.reason, status.message = reason, message
    status.finished_at_ns = finished_at_ns
    context.note_container(container)
    container.feed.end()
    container.exited.set()
    context.container_changed(container)


def _plausible(context: Context, guest_ns: int, not_before_ns: int) -> int:
    """Return a guest's time, held between what must lie before it and now."""
    now = context.clock.now_ns()
    return min(max(guest_ns, not_before_ns), now) if guest_ns else now
