"""Network namespaces by name, as `ip netns` keeps them: mounts under /run/netns.

Whoever enters a namespace does it in a thread that ends afterwards, so that no thread of a
pool is ever left in the wrong one.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

DIRECTORY = Path("/run/netns")

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x100000
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str, path: Path | None = None) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}", str(path) if path else None)


def _mount(source: str, target: Path, flags: int) -> None:
    result = _libc.mount(source.encode(), os.fsencode(target), None, ctypes.c_ulong(flags), None)
    _check(result, "mount", target)


def prepare_directory() -> None:
    """Make /run/netns a shared mount, so that mounts in it show in every mount namespace."""
    DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    try:
        _mount("", DIRECTORY, _MS_SHARED | _MS_REC)
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # EINVAL: no mount point yet
            raise
        _mount(str(DIRECTORY), DIRECTORY, _MS_BIND | _MS_REC)
        _mount("", DIRECTORY, _MS_SHARED | _MS_REC)


def create(name: str) -> None:
    """Make a namespace. For a thread of its own. Raises FileExistsError, OSError."""
    path = DIRECTORY / name
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    try:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        _mount("/proc/thread-self/ns/net", path, _MS_BIND)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def enter(name: str) -> None:
    """Move this thread into a namespace. For a thread of its own. Raises OSError."""
    fd = os.open(DIRECTORY / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, _CLONE_NEWNET), "setns", DIRECTORY / name)
    finally:
        os.close(fd)


def remove(name: str) -> None:
    """Remove the name; the namespace goes with the last who uses it. May be repeated."""
    path = DIRECTORY / name
    if _libc.umount2(os.fsencode(path), _MNT_DETACH) != 0:
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOENT):  # no mount, no file
            raise OSError(code, os.strerror(code), str(path))
    path.unlink(missing_ok=True)


def is_mounted(name: str) -> bool:
    """Whether a namespace of that name exists (a file alone is one that was half made)."""
    try:
        return (DIRECTORY / name).stat().st_dev != DIRECTORY.stat().st_dev
    except FileNotFoundError:
        return False


async def in_own_thread(
    function: Callable[[], _T], discard: Callable[[_T], object] | None = None
) -> _T:
    """Run a function in a thread that ends with it.

    A cancelled caller waits for the end before it goes, so that nothing happens behind its
    back; `discard` then gets the result that nobody takes.
    """
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns")
    try:
        running = loop.run_in_executor(pool, function)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            if discard and not running.cancelled() and running.exception() is None:
                discard(running.result())
            raise
    finally:
        pool.shutdown(wait=False)
