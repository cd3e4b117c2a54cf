"""A command as a process: an event loop that ends on SIGTERM or SIGINT, and one copy a folder."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from vk_provider.common.errors import FailedPrecondition, PermissionDenied


def run_until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends, or cancel it on SIGTERM or SIGINT and wait for its clean-up.

    Neither this process nor its children leave core files from here on.
    """
    _forbid_core_files()

    async def body() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        stopped = False

        def stop() -> None:
            nonlocal stopped
            stopped = True
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        try:
            await work
        except asyncio.CancelledError:
            if not stopped:
                raise

    asyncio.run(body())


def _forbid_core_files() -> None:
    """Pods' secrets pass through this process's memory, and must not reach a disk with it."""
    # Too small for a core file; and the one value that keeps them from a core_pattern's program,
    # too, for which limits don't count otherwise (fs/coredump.c).
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


@contextlib.contextmanager
def only_one(folder: Path, what: str) -> Iterator[None]:
    """Hold the folder for this process; raises FailedPrecondition when another holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise PermissionDenied(
            f"{folder} can't be used ({exc.strerror}); run as root, or choose a folder of yours"
        ) from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise FailedPrecondition(
                f"Another {what} works in {folder}; end it first, or give this one its own folder"
            ) from exc
        yield
    finally:
        os.close(descriptor)
