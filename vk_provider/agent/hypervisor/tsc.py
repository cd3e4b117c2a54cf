"""The host's TSC frequency, measured: under TCG the guest must be told it."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import platform
import time
from collections.abc import Callable

from vk_provider.common.errors import FailedPrecondition

# rdtsc; shl rdx, 32; or rax, rdx; ret
_READ_TSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_WINDOW_S = 0.2
_TRIES = 25


def frequency_khz(first: tuple[int, int], second: tuple[int, int]) -> int:
    """Return the frequency from two samples (TSC, nanoseconds)."""
    ticks, elapsed_ns = second[0] - first[0], second[1] - first[1]
    return round(ticks * 1_000_000 / elapsed_ns)


async def measure_tsc_khz() -> int:
    """Measure for 0.2 s against CLOCK_MONOTONIC_RAW; right to a few parts in a million.

    Raises FailedPrecondition on a machine that is no x86-64.
    """
    if platform.machine() != "x86_64":
        raise FailedPrecondition(
            f"microVMs need an x86-64 host and this is {platform.machine()}: the guest's clock "
            "is calibrated by the TSC"
        )
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as page:
        page.write(_READ_TSC)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
            raise OSError(ctypes.get_errno(), "mprotect of the page that reads the TSC")
        read_tsc: Callable[[], int] = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
        first = _sample(read_tsc)
        await asyncio.sleep(_WINDOW_S)
        return frequency_khz(first, _sample(read_tsc))


def _sample(read_tsc: Callable[[], int]) -> tuple[int, int]:
    """Return a (TSC, ns) pair: of several, the one that was read in the shortest time."""
    best: tuple[int, int, int] | None = None
    for _ in range(_TRIES):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        ticks = read_tsc()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        if best is None or after - before < best[0]:
            best = (after - before, ticks, (before + after) // 2)
    assert best is not None
    return best[1], best[2]
