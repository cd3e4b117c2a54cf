"""A disk without room: nothing new is begun, what ends is noted later, and pods live on."""

from __future__ import annotations

import sqlite3

import pytest

from tests.unit.agent.agent_world import CONTAINER, SANDBOX, World, create_request, run_request
from tests.unit.agent.test_lifecycle import exited, running
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.containers import create_container
from vk_provider.agent.context import Context
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
