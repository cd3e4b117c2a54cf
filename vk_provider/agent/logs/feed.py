"""Tells readers of a log that it grew or ended, in place of looking again and again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol


class LiveLog(Protocol):
    """One reader's view of a log that may still grow."""

    @property
    def ended(self) -> bool:
        """Whether nothing will be added any more (what is there may not be read yet)."""

    async def wait_change(self) -> None:
        """Return when the log grew, was rotated or ended since the last return of this method."""


class LogFeed:
    """The writing side: `notify` after each change, `end` after the last one.

    Both may be called in any thread; a subscription belongs to the event loop that waits on it
    and needs no closing.
    """

    def __init__(self, *, ended: bool = False) -> None:
        self.ended = ended
        self._version = 0
        self._waiters: set[Callable[[], object]] = set()
        self._lock = threading.Lock()

    def notify(self) -> None:
        """Wake those who wait; those who are reading will look once more."""
        with self._lock:
            self._version += 1
            waiters, self._waiters = self._waiters, set()
        for wake in waiters:
            wake()

    def end(self) -> None:
        """Say that nothing will be added any more. May be repeated."""
        self.ended = True
        self.notify()

    def subscribe(self) -> LiveLog:
        """Return a view for one reader; changes count from now on."""
        return _Subscription(self)

    async def wait_beyond(self, version: int) -> int:
        """Return the number of changes so far, once it is no longer `version`."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._lock:
            if self._version != version:
                return self._version
            self._waiters.add(wake)
        try:
            await changed.wait()
        finally:
            with self._lock:
                self._waiters.discard(wake)
        return self._version

    @property
    def version(self) -> int:
        """How many changes there were."""
        return self._version


class _Subscription:
    def __init__(self, feed: LogFeed) -> None:
        self._feed = feed
        self._seen = feed.version

    @property
    def ended(self) -> bool:
        return self._feed.ended

    async def wait_change(self) -> None:
        self._seen = await self._feed.wait_beyond(self._seen)


class _Ended:
    ended = True

    async def wait_change(self) -> None:
        return


#: The view of a log whose container has ended.
ENDED: LiveLog = _Ended()
