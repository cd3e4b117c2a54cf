"""How far a guest's clock is from the host's, seen from inside a container."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.runtime.api import Runtime

_NARROW_NS = 20_000_000
_TRIES = 500
_TIME = re.compile(rb"time\.tv_sec:\s+(\d+)\s+time\.tv_usec:\s+(\d+)")


async def clock_bounds(runtime: Runtime, container_id: str) -> tuple[float, float]:
    """Return the least and the most seconds by which a guest's clock is ahead of the host's.

    The image must hold busybox. A shell in the container says the time each time a line comes
    from here, so both ends of what the guest says are known by the host's clock. What several
    answers say together is true; it is asked until that is exact to 20 ms. Fails when it never is:
    an answer that says little would let a wrong clock pass for a right one.
    """
    least, most = float("-inf"), float("inf")
    async with aclosing(_times(runtime, container_id)) as times:
        async for before, guest, after in times:
            least, most = max(least, guest - after), min(most, guest - before)
            if most - least <= _NARROW_NS:
                return least / 1e9, most / 1e9
    raise AssertionError(
        f"the clock is {least / 1e9} to {most / 1e9} s ahead; {_TRIES} answers tell no more"
    )


async def _times(runtime: Runtime, container_id: str) -> AsyncGenerator[tuple[int, int, int], None]:
    """Yield the host's time before, the guest's, and the host's after."""
    turns: asyncio.Queue[None] = asyncio.Queue()
    sent = 0

    async def requests() -> AsyncIterator[pb.ExecRequest]:
        nonlocal sent
        script = "while read -r line; do adjtimex; done"
        yield pb.ExecRequest(
            start=pb.ExecStart(
                container_id=container_id, command=["sh", "-c", script], stdin=True, stdout=True
            )
        )
        for _ in range(_TRIES):
            await turns.get()
            sent = time.time_ns()
            yield pb.ExecRequest(stdin=b"\n")
        yield pb.ExecRequest(stdin_eof=True)

    said = bytearray()
    turns.put_nowait(None)
    async with aclosing(runtime.exec(requests())) as answers:
        async for answer in answers:
            said += answer.stdout
            found = _TIME.search(said)
            if found is None:
                continue
            after = time.time_ns()
            yield sent, int(found[1]) * 10**9 + int(found[2]) * 1000, after
            if not said.endswith(b"\n"):
                raise AssertionError(f"not the whole of adjtimex's words: {bytes(said)!r}")
            said.clear()
            turns.put_nowait(None)
