"""The supervisor with real, tiny children; nothing here waits for time to pass."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from vk_provider.cli.supervisor import Part, supervise
from vk_provider.common.errors import FailedPrecondition, Invalid


def child(name: str, code: str) -> Part:
    return Part(name, [sys.executable, "-c", code])


async def test_a_part_that_refuses_its_options_ends_all(tmp_path: Path) -> None:
    waits = child("b", "import signal; signal.pause()")
    with pytest.raises(ExceptionGroup) as caught:
        await supervise([child("a", "raise SystemExit(2)"), waits])
    (error,) = caught.value.exceptions
    assert isinstance(error, Invalid)
    assert "a refused its options" in str(error)


async def test_a_part_that_never_comes_to_run_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vk_provider.cli.supervisor._PAUSE_S", (0.0, 0.0))
    with pytest.raises(ExceptionGroup) as caught:
        await supervise([child("a", "raise SystemExit(1)")])
    (error,) = caught.value.exceptions
    assert isinstance(error, FailedPrecondition)
    assert "ended 3 times right after its start" in str(error)


async def test_children_get_sigterm_and_are_waited_for(tmp_path: Path) -> None:
    fifo, last_words = tmp_path / "fifo", tmp_path / "words"
    import os

    os.mkfifo(fifo)
    code = f"""
import signal, sys
def end(*_):
    open({str(last_words)!r}, "w").write("bye")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open({str(fifo)!r}, "w").close()
signal.pause()
"""
    supervisor = asyncio.ensure_future(supervise([child("a", code)]))
    await asyncio.to_thread(fifo.read_bytes)  # returns once the child has come so far
    supervisor.cancel()
    with pytest.raises(asyncio.CancelledError):
        await supervisor
    assert last_words.read_text() == "bye"
