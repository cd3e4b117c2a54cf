"""A guest that floods is listened to at its turn."""

from __future__ import annotations

import asyncio

from tests.support.fake_clock import FakeClock
from vk_provider.agent.throttle import Throttle


async def test_a_burst_passes_and_a_flood_waits() -> None:
    clock = FakeClock()
    throttle = Throttle(clock, burst=3)
    passed = 0

    async def flood() -> None:
        nonlocal passed
        while True:
            await throttle.pass_one()
            passed += 1

    async with asyncio.TaskGroup() as group:
        task = group.create_task(flood())
        await clock.settle()
        assert passed == 3
        await clock.advance(1)
        assert passed == 6
        task.cancel()
