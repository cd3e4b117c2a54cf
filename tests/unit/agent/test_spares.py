"""VMs that are kept ready: who gets one, when one is made, what becomes of those nobody took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.agent.agent_world import SANDBOX, World, make_world, run_request
from tests.unit.agent.test_lifecycle import until
from vk_provider.agent import spares as module
from vk_provider.agent.adoption import adopt_all
from vk_provider.agent.context import Context
from vk_provider.agent.sandboxes import remove_sandbox, run_sandbox
from vk_provider.agent.shapes import usual_shapes
from vk_provider.agent.spares import Spares

SMALLEST = "0.25x512Mi"


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "_available", lambda: 1.0)
    async with make_world(tmp_path) as made:
        yield made


@asynccontextmanager
async def with_spare(world: World) -> AsyncIterator[tuple[Context, str]]:
    """Run an agent that has made one VM ready; yields the VM's id, too."""
    async with world.agent() as context:
        spares = context.spares = Spares(context)
        context.spawn(spares.run(), "VMs kept ready")
        await until(lambda: spares.ready == 1)
        yield context, next(iter(world.machines.vms))


async def test_a_sandbox_of_its_shape_takes_it_and_leaves_no_trace_of_it(world: World) -> None:
    async with with_spare(world) as (context, spare):
        await run_sandbox(context, run_request(size_override=SMALLEST))
        record = context.sandbox(SANDBOX).record
        assert record.machine_id == spare != SANDBOX
        assert record.vm_cpu_before_ns > 0
        assert world.guest.configured is not None
        assert world.guest.configured.machine_id == SANDBOX  # no container sees the guest's file
        assert record.status.start_reason == "one of the VMs kept ready; cold: a test"
        assert {"ready_scratch", "ready_vm", "ready_rehearsal", "configure"} <= {
            phase.name for phase in record.status.phases
        }
        assert context.store.sandboxes()[0].machine_id == spare
        await until(lambda: len(world.machines.vms) == 2)  # and the next one is made
        await remove_sandbox(context, SANDBOX)
        assert world.machines.vms[spare].ended.done()
        assert spare not in world.network.attached
        assert not world.settings.machine_state_dir(spare).exists()
        assert not world.settings.machine_run_dir(spare).exists()


async def test_the_next_agent_takes_over_a_vm_that_was_a_spare(world: World) -> None:
    async with with_spare(world) as (context, spare):
        await run_sandbox(context, run_request(size_override=SMALLEST))
    async with world.agent() as context:
        await adopt_all(context)
        assert context.sandbox(SANDBOX).machine is not None
        assert not world.machines.vms[spare].ended.done()


async def test_another_shape_does_not_fit_and_is_made_for_the_next_pod(world: World) -> None:
    async with with_spare(world) as (context, spare):
        await run_sandbox(context, run_request(size_override="1x2Gi"))
        assert context.sandbox(SANDBOX).record.machine_id == SANDBOX
        assert context.sandbox(SANDBOX).record.status.start_reason == "cold: a test"
        await until(world.machines.vms[spare].ended.done)
        await until(lambda: len(world.machines.vms) == 3)
        assert world.machines.prepared[-1] == (1, 2048)


async def test_there_are_so_many_of_each_shape_as_were_wanted_last(world: World) -> None:
    async with world.agent() as context:
        context.settings = replace(context.settings, spare_vms=3)
        spares = context.spares = Spares(context)
        context.spawn(spares.run(), "VMs kept ready")
        await until(lambda: spares.ready == 3)
        first = list(world.machines.vms)
        await run_sandbox(context, run_request(size_override="1x2Gi"))
        await until(lambda: world.machines.prepared[-1] == (1, 2048) and spares.ready == 3)
        assert [world.machines.vms[vm].ended.done() for vm in first] == [False, False, True]
        taken = await spares.take(usual_shapes(context.sizes)[0], context.settings.scratch_bytes)
        assert taken is not None
        assert taken.seed.machine_id == first[0]
        await until(lambda: spares.ready == 3)
        assert [world.machines.vms[vm].ended.done() for vm in first] == [False, False, True]
        await taken.machine.vm.kill()


async def test_none_is_made_where_memory_is_not_plenty(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = 0.24
    monkeypatch.setattr(module, "_available", lambda: available)
    async with world.agent() as context:
        spares = context.spares = Spares(context)
        context.spawn(spares.run(), "VMs kept ready")
        for _ in range(50):
            await asyncio.sleep(0)
        assert world.machines.vms == {}
        available = 0.26
        spares.look()
        await until(lambda: spares.ready == 1)
        available = 0.11
        spares.look()
        await until(lambda: not spares._news.is_set())
        assert spares.ready == 1


async def test_all_are_given_back_when_memory_is_short_also_while_one_is_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = 1.0
    monkeypatch.setattr(module, "_available", lambda: available)
    async with world.agent() as context:
        context.settings = replace(context.settings, spare_vms=2)
        spares = context.spares = Spares(context)
        context.spawn(spares.run(), "VMs kept ready")
        await until(lambda: spares.ready == 1)
        world.guest.hang.clear()  # the second one's rehearsal takes its time
        available = 0.09
        spares.look()
        first = next(iter(world.machines.vms.values()))
        await until(first.ended.done)
        world.guest.hang.set()


async def test_one_that_waits_for_room_on_the_disk_is_nobodys(world: World) -> None:
    async with with_spare(world) as (context, spare):
        world.machines.vms[spare].held = True
        await run_sandbox(context, run_request(size_override=SMALLEST))
        assert context.sandbox(SANDBOX).record.machine_id == SANDBOX


async def test_who_wants_another_disk_starts_a_vm_of_its_own(world: World) -> None:
    async with with_spare(world) as (context, _):
        request = run_request(size_override=SMALLEST, ephemeral_storage_limit_bytes=1 << 30)
        await run_sandbox(context, request)
        assert context.sandbox(SANDBOX).record.machine_id == SANDBOX


async def test_none_is_made_while_a_pod_starts(world: World) -> None:
    async with world.agent() as context:
        context.spares = Spares(context)
        context.spawn(context.spares.run(), "VMs kept ready")
        context.spares.start_begins(SANDBOX)
        for _ in range(50):
            await asyncio.sleep(0)
        assert world.machines.vms == {}
        context.spares.start_ends(SANDBOX)
        await until(lambda: bool(world.machines.vms))


async def test_nobody_is_left_behind_by_an_agent_that_ends(world: World) -> None:
    async with with_spare(world) as (_, spare):
        pass
    assert world.machines.vms[spare].ended.done()
    assert world.network.attached == set()


async def test_a_killed_agents_spare_is_removed_by_the_next(world: World) -> None:
    left = "e" * 32  # no record names it
    world.network.attached.add(left)
    world.machines.leftovers.add(left)
    async with world.agent() as context:
        await adopt_all(context)
    assert world.network.attached == world.machines.leftovers == set()


async def test_a_host_that_is_short_of_memory_gets_it_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_spare(world) as (context, spare):
        assert context.spares is not None
        monkeypatch.setattr(module, "_available", lambda: 0.09)
        context.spares.look()
        await until(world.machines.vms[spare].ended.done)
        assert len(world.machines.vms) == 1


async def test_a_host_that_cannot_make_one_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.0)
    world.machines.error = OSError("out of memory")
    async with world.agent() as context:
        context.spares = Spares(context)
        context.spawn(context.spares.run(), "VMs kept ready")
        await until(lambda: world.machines.prepared)
        world.machines.error = None
        await until(lambda: context.spares and context.spares.ready)


async def test_the_one_in_the_making_is_waited_for(world: World) -> None:
    async with world.agent() as context:
        spares = context.spares = Spares(context)
        world.guest.hold_rehearsals.clear()
        context.spawn(spares.run(), "VMs kept ready")
        await until(lambda: "rehearse" in world.guest.calls)
        starting = asyncio.create_task(run_sandbox(context, run_request(size_override=SMALLEST)))
        (spare,) = world.machines.vms
        await until(lambda: not world.machines.vms[spare].yields)
        world.guest.hold_rehearsals.set()
        await starting
        assert context.sandbox(SANDBOX).record.machine_id == spare


async def test_who_stops_waiting_leaves_it_for_the_next(world: World) -> None:
    async with world.agent() as context:
        spares = Spares(context)
        world.guest.hold_rehearsals.clear()
        context.spawn(spares.run(), "VMs kept ready")
        await until(lambda: "rehearse" in world.guest.calls)
        shape = usual_shapes(context.sizes)[0]
        waiting = asyncio.create_task(spares.take(shape, 1))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        world.guest.hold_rehearsals.set()
        await until(lambda: spares.ready >= 1)
