"""Keeps child processes running, and ends with them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from vk_provider.common.errors import FailedPrecondition, Invalid
from vk_provider.common.logging import get_logger

_PAUSE_S = (1.0, 30.0)
_HEALTHY_S = 10.0  # one that lived that long was started right
_TRIES = 3  # so many early deaths in a row before anything ever worked: it is misconfigured
_GRACE_S = 20.0
_USAGE = 2

log = get_logger("run")


@dataclass(frozen=True, slots=True)
class Part:
    """A child process: a name for people, and its command."""

    name: str
    command: Sequence[str]


async def supervise(parts: Sequence[Part]) -> None:
    """Run all parts until cancelled; then each gets SIGTERM and time to end.

    A part that dies is started again after 1 s, doubling to 30 s, anew after 10 s of health.
    Raises Invalid when one refuses its options (exit code 2), FailedPrecondition when one never
    came to run; the others are ended then, too.
    """
    async with asyncio.TaskGroup() as tasks:
        for part in parts:
            tasks.create_task(_keep(part), name=f"supervise {part.name}")


async def _keep(part: Part) -> None:
    clock = asyncio.get_running_loop().time
    pause = _PAUSE_S[0]
    early = 0
    while True:
        began = clock()
        code = await _run_once(part)
        if code == _USAGE:
            raise Invalid(f"{part.name} refused its options or files; its words are above")
        healthy = clock() - began >= _HEALTHY_S
        if healthy:
            pause, early = _PAUSE_S[0], -1  # it has worked: never give up from now on
        elif early >= 0:
            early += 1
            if early >= _TRIES:
                raise FailedPrecondition(
                    f"{part.name} ended {_TRIES} times right after its start, the last time with "
                    f"exit code {code}; its words are above"
                )
        log.warning("part ended, starting it again", part=part.name, exit_code=code, in_s=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _PAUSE_S[1])


async def _run_once(part: Part) -> int:
    # A supervisor that is killed takes its parts with it, or the next one would meet them.
    setpriv = shutil.which("setpriv")
    prefix = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
    process = await asyncio.create_subprocess_exec(
        *prefix, *part.command, stdin=asyncio.subprocess.DEVNULL
    )
    log.info("part started", part=part.name, pid=process.pid)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            await asyncio.shield(_end(part, process))


async def _end(part: Part, process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_GRACE_S):
            await process.wait()
    except TimeoutError:
        log.warning("part did not end in time, killing it", part=part.name, grace_s=_GRACE_S)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
