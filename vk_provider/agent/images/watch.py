"""Tells when something in a directory is written (inotify(7)), a few times a second at most."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_MODIFY, _IN_MOVED_FROM = 0x2, 0x40
_QUIET_S = 0.2
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def on_write(directory: Path, tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` in this event loop after files of the directory were written or moved.

    What happens within 0.2 s after a call is told by one more. Where the kernel gives no
    watch (its limit is reached), nothing is told.
    """
    fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        yield
        return
    watch = _Watch(fd, tell)
    try:
        mask = ctypes.c_uint32(_IN_MODIFY | _IN_MOVED_FROM)
        if _libc.inotify_add_watch(fd, os.fsencode(directory), mask) >= 0:
            watch.listen()
        yield
    finally:
        watch.end()
        os.close(fd)


class _Watch:
    def __init__(self, fd: int, tell: Callable[[], None]) -> None:
        self._fd = fd
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None

    def listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._fd, self._written)

    def end(self) -> None:
        self._loop.remove_reader(self._fd)
        if self._pause is not None:
            self._pause.cancel()

    def _written(self) -> None:
        self._loop.remove_reader(self._fd)
        self._pause = self._loop.call_later(_QUIET_S, self.listen)
        os.read(self._fd, 64 * 1024)  # what is left wakes again after the pause
        self._tell()
