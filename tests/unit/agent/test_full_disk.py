"""A disk without room: nothing new is begun, what ends is noted later, and pods live on."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Sequence
from functools import partial

import pytest

from tests.unit.agent.agent_world import CONTAINER, SANDBOX, World, create_request, run_request
from tests.unit.agent.test_lifecycle import exited, running, until
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider._pb.guest_pb2 import OutputRecord
from vk_provider.agent.containers import create_container
from vk_provider.agent.context import Context
from vk_provider.agent.logs import LogWriter
from vk_provider.agent.sandboxes import remove_sandbox, run_sandbox, stop_sandbox
from vk_provider.common.errors import Exhausted


def fill(context: Context) -> None:
    """Leave the database no page more than it has."""
    connection: sqlite3.Connection = context.store._connection
    connection.execute("PRAGMA max_page_count = 1")
    rows = 0
    while True:
        try:
            connection.execute("INSERT INTO settings VALUES (?, ?)", (f"filler {rows}", "x" * 100))
        except sqlite3.OperationalError:
            return
        rows += 1


def give_room(context: Context) -> None:
    context.store._connection.execute("PRAGMA max_page_count = 1000000")


async def test_nothing_new_is_begun(world: World) -> None:
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        fill(context)
        with pytest.raises(Exhausted, match="make room"):
            await create_container(context, create_request(annotations={"big": "x" * 10_000}))
        assert world.guest.containers == {}


async def test_an_end_is_told_at_once_and_written_when_there_is_room(world: World) -> None:
    async with world.agent() as context:
        await running(context)
        fill(context)
        await world.guest.end(CONTAINER, 1, termination_message=b"x" * 4000)
        assert (await exited(context)).exit_code == 1
        assert context.sandbox(SANDBOX).record.status.state == pb.SANDBOX_READY
        give_room(context)
        context.write_notes()
        assert context.store.containers()[0].exited


async def test_a_sandbox_can_be_stopped_and_removed(world: World) -> None:
    async with world.agent() as context:
        await running(context)
        fill(context)
        await stop_sandbox(context, SANDBOX)
        assert world.machines.vms[SANDBOX].ended.done()
        give_room(context)
        await remove_sandbox(context, SANDBOX)
        assert context.store.sandboxes() == []


async def test_a_log_that_waits_for_room_says_so_and_when_it_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.agent() as context:
        await running(context)
        container = context.container(CONTAINER)
        full = True
        append = LogWriter.append

        def append_where_there_is_room(writer: LogWriter, records: Sequence[OutputRecord]) -> bytes:
            if full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return append(writer, records)

        monkeypatch.setattr(LogWriter, "append", append_where_there_is_room)
        seq = context.events.seq
        await world.guest.say(CONTAINER, "hello\n")
        await until(lambda: container.status().log_held == "No space left on device")
        assert context.events.seq == seq + 1
        full = False
        await until(lambda: container.status().log_held == "")
        assert context.events.seq == seq + 2
        assert "hello" in container.log_path.read_text()


async def test_a_vm_that_waits_for_room_says_so_and_when_it_goes_on(world: World) -> None:
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        vm = world.machines.vms[SANDBOX]
        seen: list[bool] = []
        for held in (True, False, True):
            seq = context.events.seq
            vm.held = held
            vm.hold_changed.set()
            await until(partial(_is_past, context, seq))
            seen.append(bool(context.sandbox(SANDBOX).status().held))
        assert seen == [True, False, True]


def _is_past(context: Context, seq: int) -> bool:
    return context.events.seq > seq
