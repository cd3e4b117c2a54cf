"""How a sandbox ends: the VM killed, its containers' ends recorded, its network and disk freed.

One task a sandbox does it, whoever asked first. What could not be done is reported to those who
wait for it, and done by the next call: every step may be repeated.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from vk_provider.agent.context import Context
from vk_provider.agent.exits import mark_killed
from vk_provider.agent.records import Phase
from vk_provider.agent.sandbox import Sandbox
from vk_provider.agent.usage_records import close_usage
from vk_provider.common.errors import Internal, VkError
from vk_provider.common.logging import get_logger

_log = get_logger("agent.sandbox")


def begin_end(context: Context, sandbox: Sandbox, reason: str, message: str) -> None:
    """Start to end a sandbox, unless that is under way or done. The first reason stays."""
    record = sandbox.record
    if record.phase is Phase.ENDED or sandbox.is_ending:
        return
    if record.phase in (Phase.STARTING, Phase.READY):
        record.enter(Phase.STOPPING)
    status = record.status
    status.reason = status.reason or reason
    status.message = status.message or message
    status.ended_at_ns = status.ended_at_ns or context.clock.now_ns()
    context.note(sandbox)
    sandbox.end_error = None
    sandbox.ending = context.spawn(_end(context, sandbox), f"end of sandbox {sandbox.id}")


async def wait_end(sandbox: Sandbox) -> None:
    """Return when the sandbox has ended; raises what stood in the way."""
    if sandbox.ending is not None:
        await asyncio.wait([sandbox.ending])
    if sandbox.end_error is not None:
        raise sandbox.end_error


async def _end(context: Context, sandbox: Sandbox) -> None:
    try:
        await _take_down(context, sandbox)
    except VkError as exc:
        _log.error("a sandbox could not be taken down", sandbox=sandbox.id, why=str(exc))
        sandbox.end_error = exc
    except OSError as exc:
        sandbox.end_error = Internal(f"taking sandbox {sandbox.id} down: {exc}")
        _log.exception("a sandbox could not be taken down", sandbox=sandbox.id)


async def _take_down(context: Context, sandbox: Sandbox) -> None:
    record = sandbox.record
    for task in (sandbox.starting, sandbox.life):
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
    if sandbox.machine is not None:
        await sandbox.machine.end()
        sandbox.machine = None
    elif record.vm:
        await context.machines.destroy(record.vm)
    why = record.status.message or "the pod's VM was stopped"
    for container in sandbox.containers.values():
        mark_killed(context, container, f"{record.status.reason or 'Stopped'}: {why}")
    close_usage(context, sandbox)
    if record.phase is not Phase.REMOVING:
        context.sandbox_changed(sandbox)
    await leave_nothing(context, record.machine_id)
    if record.phase is Phase.STOPPING:
        record.enter(Phase.ENDED)
        context.note(sandbox)
        context.sandbox_changed(sandbox)


async def leave_nothing(context: Context, machine_id: str) -> None:
    """Remove an ended VM's place in the network and its directories. May be repeated."""
    await context.network.tear_down(machine_id)
    for directory in (
        context.settings.machine_run_dir(machine_id),
        context.settings.machine_state_dir(machine_id),
    ):
        await asyncio.to_thread(_remove_tree, directory)


def _remove_tree(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
