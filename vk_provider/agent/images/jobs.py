"""Pulls that several callers wait for: done once, told to all, given up when nobody is left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vk_provider.agent.images.stored import StoredImage


@dataclass(frozen=True)
class Progress:
    """phase: resolving, fetching, unpacking, done. Bytes are those of the layers as fetched."""

    phase: str = "resolving"
    bytes_done: int = 0
    bytes_total: int = 0


class Job:
    """One pull under way, as those who wait for it see it."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.users = 0
        self.task: asyncio.Task[None] | None = None
        self._outcome: asyncio.Future[StoredImage] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()

    @property
    def done(self) -> bool:
        return self._outcome.done()

    def tell(self, progress: Progress) -> None:
        """Let all who wait know how far it is."""
        self.progress = progress
        self._wake()

    def finish(self, image: StoredImage) -> None:
        if not self.done:
            self._outcome.set_result(image)
        self._wake()

    def fail(self, error: BaseException) -> None:
        if not self.done:
            self._outcome.set_exception(error)
            self._outcome.exception()  # seen: there may be nobody left to take it
        self._wake()

    def result(self) -> StoredImage:
        """Return the image, or raise what the pull failed with. Only when `done`."""
        return self._outcome.result()

    async def watch(self) -> AsyncGenerator[Progress, None]:
        """Yield the progress now and after each change (the latest counts), until it is done."""
        while not self.done:
            changed = self._changed
            yield self.progress
            if not self.done:
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class KeyedLocks:
    """A lock for each key that somebody is busy with."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        self._users[key] += 1
        try:
            async with self._locks.setdefault(key, asyncio.Lock()):
                yield
        finally:
            self._users[key] -= 1
            if self._users[key] == 0:
                del self._users[key], self._locks[key]
