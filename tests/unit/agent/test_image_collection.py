"""Which images stay when the disk is full, that a failure is only told, and when it is looked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fake_clock import FakeClock
from tests.unit.agent.agent_world import IMAGE_REF, World, make_world, run_request
from tests.unit.agent.test_lifecycle import running
from vk_provider.agent.image_collection import collect_images, collect_once, images_in_use
from vk_provider.agent.sandboxes import remove_sandbox
from vk_provider.common.errors import Unavailable


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(tmp_path) as made:
        yield made


async def test_what_a_container_was_made_from_stays(world: World) -> None:
    async with world.agent() as context:
        await running(context)
        assert images_in_use(context) == {IMAGE_REF}
        await collect_once(context)
        assert world.images.collected == [{IMAGE_REF}]
        await remove_sandbox(context, run_request().sandbox_id)
        await collect_once(context)
        assert world.images.collected == [{IMAGE_REF}, set()]


async def test_a_disk_that_refuses_ends_nothing(world: World) -> None:
    async with world.agent() as context:
        world.images.collect_error = Unavailable("a test says no")
        await collect_once(context)


async def test_every_five_minutes_templates_and_images_are_looked_at(world: World) -> None:
    clock = FakeClock()
    async with world.agent() as context:
        context.clock = clock
        task = asyncio.create_task(collect_images(context))
        await clock.advance(299)
        assert (world.machines.prunings, world.images.collected) == (0, [])
        await clock.advance(2)
        assert (world.machines.prunings, world.images.collected) == (1, [set()])
        task.cancel()
