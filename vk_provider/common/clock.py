"""Time as a dependency, so that tests own it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time, monotonic time and waiting."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds; cancellation passes through."""


class SystemClock:
    """The machine's own clock."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def sleep_until_set(clock: Clock, seconds: float, event: asyncio.Event) -> bool:
    """Return when the event is set (True), after that many seconds at the latest (False)."""
    async with asyncio.TaskGroup() as tasks:
        pause = tasks.create_task(clock.sleep(seconds), name="pause")
        news = tasks.create_task(event.wait(), name="event")
        await asyncio.wait({pause, news}, return_when=asyncio.FIRST_COMPLETED)
        pause.cancel()
        news.cancel()
    return event.is_set()
