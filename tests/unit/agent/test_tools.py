"""Other people's programs end with whoever asked for them."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from vk_provider.agent.tools import PIPE, tool
from vk_provider.common.errors import FailedPrecondition


async def test_a_program_gets_its_input_and_only_the_environment_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "s")
    command = ["sh", "-c", 'cat; echo "$SECRET$GIVEN"']
    async with tool(command, package="dash", stdin=PIPE, stdout=PIPE, env={"GIVEN": "g"}) as sh:
        output, _ = await sh.communicate(b"in ")
    assert output == b"in g\n"
    assert sh.returncode == 0


async def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(FailedPrecondition, match=r"no-such is not installed \(Debian: nothing\)"):
        async with tool(["no-such"], package="nothing"):
            pass


async def test_a_program_ends_with_a_cancelled_caller() -> None:
    pids: asyncio.Queue[int] = asyncio.Queue()

    async def wait() -> None:
        async with tool(["sleep", "1000"], package="coreutils") as process:
            pids.put_nowait(process.pid)
            await process.wait()

    task = asyncio.create_task(wait(), name="wait")
    pid = await pids.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)
