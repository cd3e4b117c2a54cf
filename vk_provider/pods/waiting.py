"""Waiting for an event or a time, whichever is first."""

from __future__ import annotations

import asyncio

from vk_provider.common.clock import Clock


async def wait_until(event: asyncio.Event, clock: Clock, timeout_s: float | None) -> bool:
    """Return when the event is set (True) or `timeout_s` have passed (False); None: no limit."""
    if timeout_s is None:
        return await event.wait()
    async with asyncio.TaskGroup() as group:
        waits = {
            group.create_task(event.wait(), name="wait/event"),
            group.create_task(clock.sleep(timeout_s), name="wait/time"),
        }
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
    return event.is_set()
