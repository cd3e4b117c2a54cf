"""A disk without room: nothing new is begun, what ends is noted later, and pods live on."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import Sequence
from functools import partial

import pytest

from tests.unit.agent.agent_world import CONTAINER, SANDBOX, World, create_request, run_request
from tests.unit.agent.test_lifecycle import exited, running, until
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider._pb.guest_pb2 import OutputRecord
from vk_provider.agent import exits
from vk_provider.agent.containers import create_container, stop_container
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


class FullDisk:
    """Has no room for logs until it is given some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, trouble: int = errno.ENOSPC) -> None:
        self.full = True
        append = LogWriter.append

        def append_where_there_is_room(writer: LogWriter, records: Sequence[OutputRecord]) -> bytes:
            if self.full:
                raise OSError(trouble, os.strerror(trouble))
            return append(writer, records)

        monkeypatch.setattr(LogWriter, "append", append_where_there_is_room)


async def test_a_log_that_waits_for_room_says_so_and_when_it_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.agent() as context:
        await running(context)
        container, disk = context.container(CONTAINER), FullDisk(monkeypatch)
        seq = context.events.seq
        await world.guest.say(CONTAINER, "hello\n")
        await until(lambda: container.status().log_held == "No space left on device")
        await world.guest.say(CONTAINER, "you\n")
        assert context.events.seq == seq + 1
        disk.full = False
        await until(lambda: container.status().log_held == "")
        assert context.events.seq == seq + 2
        await until(lambda: "you" in container.log_path.read_text())
        assert container.log_path.read_text().count("hello") == 1


async def test_a_container_has_not_ended_while_its_last_words_wait_for_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "_STALL_S", 0.01)
    async with world.agent() as context:
        await running(context)
        container, disk = context.container(CONTAINER), FullDisk(monkeypatch)
        await world.guest.say(CONTAINER, "last words\n")
        await until(lambda: container.status().log_held)
        await world.guest.end(CONTAINER, 0)
        await asyncio.sleep(0.1)
        assert container.status().state == pb.CONTAINER_RUNNING
        disk.full = False
        assert (await exited(context)).exit_code == 0
        assert "last words" in container.log_path.read_text()


async def test_who_makes_room_may_take_the_log_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.agent() as context:
        await running(context)
        container = context.container(CONTAINER)
        await world.guest.say(CONTAINER, "old words\n")
        await until(lambda: container.log_path.exists() and container.log_path.read_text())
        disk = FullDisk(monkeypatch)
        await world.guest.say(CONTAINER, "new words\n")
        await until(lambda: container.status().log_held)
        container.log_path.unlink()
        disk.full = False
        await until(lambda: container.status().log_held == "")
        assert "new words" in container.log_path.read_text()


async def test_a_log_that_never_can_be_written_keeps_no_container_from_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "_STALL_S", 0.01)
    async with world.agent() as context:
        await running(context)
        FullDisk(monkeypatch, errno.EIO)
        await world.guest.say(CONTAINER, "last words\n")
        await world.guest.end(CONTAINER, 3)
        assert (await exited(context)).exit_code == 3


async def test_who_is_to_end_does_not_wait_for_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "_STALL_S", 0.01)
    async with world.agent() as context:
        await running(context)
        container = context.container(CONTAINER)
        FullDisk(monkeypatch)
        await world.guest.say(CONTAINER, "last words\n")
        await until(lambda: container.status().log_held)
        await world.guest.end(CONTAINER, 0)
        assert (await stop_container(context, CONTAINER, 0, "")).exit_code == 0
        assert context.sandbox(SANDBOX).record.status.state == pb.SANDBOX_READY


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
