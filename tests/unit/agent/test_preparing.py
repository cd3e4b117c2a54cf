"""Which templates an agent makes before anybody asks."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.agent.agent_world import World
from vk_provider.agent.preparing import prepare_usual_shapes
from vk_provider.agent.shapes import GIB, Size, usual_shapes


async def test_the_smallest_and_the_default_are_prepared(world: World) -> None:
    async with world.agent() as context:
        await context.spawn(prepare_usual_shapes(context), "templates")
    assert world.machines.prepared == [(1, 512), (1, 2048)]


async def test_nothing_is_prepared_with_templates_off(world: World) -> None:
    async with world.agent() as context:
        context.settings = replace(context.settings, templates=False)
        await context.spawn(prepare_usual_shapes(context), "templates")
    assert world.machines.prepared == []


def test_one_machine_for_both_is_prepared_once() -> None:
    only = Size(1000, GIB)
    assert len(usual_shapes([only])) == 1
    assert usual_shapes([]) == []
