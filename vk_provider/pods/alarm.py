"""One timer that rings at the earliest of the times asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vk_provider.common.clock import Clock

_NS = 1_000_000_000


class Alarm:
    """Calls `ring` at the earliest time set since it last rang. `run` owns the waiting."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._at_ns = 0
        self._changed = asyncio.Event()

    def set(self, at_ns: int) -> None:
        """Ring at that wall time at the latest."""
        if not self._at_ns or at_ns < self._at_ns:
            self._at_ns = at_ns
            self._changed.set()

    async def run(self) -> None:
        """Wait and ring until cancelled."""
        while True:
            await self._changed.wait()
            async with asyncio.TaskGroup() as group:
                while self._at_ns:
                    self._changed.clear()
                    left = (self._at_ns - self._clock.now_ns()) / _NS
                    if left <= 0:
                        self._at_ns = 0
                        self._ring()
                        break
                    await _either(group, self._changed, self._clock, left)


async def _either(
    group: asyncio.TaskGroup, event: asyncio.Event, clock: Clock, limit_s: float
) -> None:
    waits: set[asyncio.Task[object]] = {
        group.create_task(event.wait(), name="alarm/changed"),
        group.create_task(clock.sleep(limit_s), name="alarm/time"),
    }
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in waits:
        task.cancel()
