"""A new agent finds what the last one left: VMs that run, work half done, things nobody knows."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable

from vk_provider.agent.context import Context
from vk_provider.agent.ending import begin_end, wait_end
from vk_provider.agent.living import begin_life
from vk_provider.agent.logs import LogFeed
from vk_provider.agent.records import Phase
from vk_provider.agent.sandbox import Container, Sandbox
from vk_provider.agent.sandboxes import remove
from vk_provider.agent.usage_records import estimate_end
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger

_log = get_logger("agent.adoption")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")


async def adopt_all(context: Context) -> None:
    """Take every record up again, and remove what carries our marks and has no record.

    What can't be finished now is logged, and stays recorded for the next attempt.
    """
    load(context)
    async with asyncio.TaskGroup() as group:
        for sandbox in list(context.sandboxes.values()):
            group.create_task(_adopt(context, sandbox), name=f"adoption of {sandbox.id}")
    await remove_orphans(context)


def load(context: Context) -> None:
    """Fill `sandboxes` and `containers` from the records."""
    for record in context.store.sandboxes():
        context.sandboxes[record.id] = Sandbox(record)
    for container_record in context.store.containers():
        sandbox = context.sandboxes.get(container_record.sandbox_id)
        if sandbox is None:
            context.store.delete_container(container_record.id)
            continue
        ended = container_record.exited
        container = Container(container_record, sandbox, feed=LogFeed(ended=ended))
        if ended:
            container.exited.set()
        sandbox.containers[container.id] = container
        context.containers[container.id] = container
    for usage in context.store.usage():
        if (sandbox := context.sandboxes.get(usage.sandbox_id)) is not None:
            sandbox.usage = usage


async def remove_orphans(context: Context) -> None:
    """Remove VMs, networks and files that no record knows: of undone work, and VMs kept ready."""
    settings = context.settings
    known = {sandbox.record.machine_id for sandbox in context.sandboxes.values()}
    for machine_id in sorted(context.machines.list_leftovers() - known):
        _log.info("removing a VM that is no pod's", machine=machine_id)
        await _try(context.machines.remove_leftover(machine_id), machine_id)
    for machine_id in sorted(context.network.list_machine_ids() - known):
        _log.info("removing a network that is no pod's", machine=machine_id)
        await _try(context.network.tear_down(machine_id), machine_id)
    for parent in (settings.state_dir / "sandboxes", settings.run_dir / "sandboxes"):
        for directory in parent.iterdir() if parent.is_dir() else ():
            if _MACHINE_ID.fullmatch(directory.name) and directory.name not in known:
                _log.info("removing files that are no pod's", directory=str(directory))
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def _adopt(context: Context, sandbox: Sandbox) -> None:
    try:
        match sandbox.record.phase:
            case Phase.READY:
                await _take_up(context, sandbox)
            case Phase.STARTING:
                _log.warning("undoing a start that was interrupted", sandbox=sandbox.id)
                await remove(context, sandbox)
                context.store.delete_usage(sandbox.id)
            case Phase.STOPPING:
                begin_end(context, sandbox, "Stopped", "")
                await wait_end(sandbox)
            case Phase.REMOVING:
                await remove(context, sandbox)
            case Phase.ENDED:
                pass
    except VkError as exc:
        _log.error("a sandbox could not be taken up", sandbox=sandbox.id, why=str(exc))


async def _take_up(context: Context, sandbox: Sandbox) -> None:
    machine = await context.machines.adopt(sandbox.record.vm)
    if machine is None:
        estimate_end(context, sandbox)
        begin_end(context, sandbox, "VMExited", "the VM ended while no agent watched it")
        await wait_end(sandbox)
        return
    sandbox.machine = machine
    sandbox.clock_doubted.set()  # nobody has looked after it meanwhile
    # Which disks the guest has mounted is asked for again when one is needed: that is idempotent.
    begin_life(context, sandbox, machine)
    await sandbox.group_ready.wait()
    _log.info("adopted a VM", sandbox=sandbox.id, containers=len(sandbox.containers))


async def _try(work: Awaitable[None], machine_id: str) -> None:
    try:
        await work
    except VkError as exc:
        _log.error("a leftover could not be removed", machine=machine_id, why=str(exc))
