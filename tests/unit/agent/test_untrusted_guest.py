"""What a guest may say or leave unsaid, and what of it is believed."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.agent.agent_world import CONTAINER, SANDBOX, World, create_request, run_request
from tests.unit.agent.test_lifecycle import until
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent import containers, living
from vk_provider.agent.containers import create_container, start_container, stop_container
from vk_provider.agent.ending import wait_end
from vk_provider.agent.guest_words import guest_words
from vk_provider.agent.sandboxes import run_sandbox


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "_SILENT_S", 0.5)


@pytest.mark.usefixtures("impatient")
async def test_a_guest_that_says_nothing_any_more_is_ended_with_the_reason(world: World) -> None:
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        await create_container(context, create_request())
        await start_container(context, CONTAINER)
        world.guest.silent = True
        await context.container(CONTAINER).exited.wait()
        sandbox = context.sandbox(SANDBOX)
        await wait_end(sandbox)
        status = sandbox.status()
    assert (status.state, status.reason) == (pb.SANDBOX_NOT_READY, "GuestFailed")
    assert "the guest agent has been silent for 1 s" in status.message
    assert status.containers[0].message == f"GuestFailed: {status.message}"


@pytest.mark.usefixtures("impatient")
async def test_a_vm_that_waits_for_room_on_the_hosts_disk_is_not_blamed(world: World) -> None:
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        world.machines.vms[SANDBOX].held = True
        world.guest.silent = True
        await asyncio.sleep(1.5)
        assert context.sandbox(SANDBOX).status().state == pb.SANDBOX_READY


async def test_a_guest_that_ends_nothing_cannot_keep_its_pod(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "_KILL_S", 0.05)
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        await create_container(context, create_request())
        await start_container(context, CONTAINER)
        world.guest.immortal = True
        status = await stop_container(context, CONTAINER, 0, "")
        assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, 137)
        assert status.message == (
            "GuestFailed: container 'main' was to be killed: its guest did not end it within 0.05 s"
        )
        assert world.machines.vms[SANDBOX].ended.done()


async def test_statistics_that_end_are_taken_up_again(world: World) -> None:
    world.guest.ends_statistics = True
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        sandbox = context.sandbox(SANDBOX)

        def thrice() -> bool:
            sandbox.stats_wanted.set()
            return world.guest.calls.count("stats") >= 3

        await until(thrice)
        assert sandbox.status().state == pb.SANDBOX_READY


def test_words_of_a_guest_are_cut_and_do_nothing_to_a_terminal() -> None:
    assert (
        guest_words("no such\x1b[2J\0file\n" + "é" * 2000)
        == ("no such [2J file " + "é" * 2000)[:1000]
    )


async def test_the_reason_of_a_failed_start_is_words_only(world: World) -> None:
    world.guest.start_error = "exec: \x1b]0;title\x07" + "x" * 10_000
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        await create_container(context, create_request())
        status = await start_container(context, CONTAINER)
    assert status.message.isprintable()
    assert len(status.message) == 4096
