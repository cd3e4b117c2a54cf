from __future__ import annotations

import asyncio

from tests.support.fake_clock import FakeClock
from vk_provider.common.clock import sleep_until_set


async def test_a_pause_ends_with_its_time_or_the_event() -> None:
    clock, event = FakeClock(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(sleep_until_set(clock, 5, event))
        await clock.wait_for_sleeper()
        await clock.advance(5)
        assert await first is False
        second = tasks.create_task(sleep_until_set(clock, 5, event))
        await clock.wait_for_sleeper()
        event.set()
        assert await second is True
