"""Processes that outlive the command that started them, and how they are found and ended.

Each has a record (name, pid, start time in ticks); a pid alone may have been taken by another.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.devcluster.settings import ClusterSettings


@dataclass(frozen=True)
class Record:
    """A process that we started."""

    name: str
    pid: int
    start_ticks: int

    @property
    def alive(self) -> bool:
        return start_ticks(self.pid) == self.start_ticks


def start_ticks(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; None: it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def records(settings: ClusterSettings) -> list[Record]:
    """Return what was started, oldest first, whether alive or not."""
    if not settings.records.is_dir():
        return []
    files = sorted(settings.records.glob("*.json"), key=lambda f: f.stat().st_mtime_ns)
    return [Record(**json.loads(f.read_text())) for f in files]


def running(settings: ClusterSettings, name: str) -> Record | None:
    """Return the live process of that name."""
    return next((r for r in records(settings) if r.name == name and r.alive), None)


def spawn(
    settings: ClusterSettings,
    name: str,
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
) -> Record:
    """Start `command` in a session of its own, with output in logs/NAME.log, unless it runs."""
    if (there := running(settings, name)) is not None:
        return there
    settings.logs.mkdir(parents=True, exist_ok=True)
    settings.records.mkdir(parents=True, exist_ok=True)
    with (settings.logs / f"{name}.log").open("ab") as log:
        # Not subprocess: nobody here waits for it, and it outlives this command.
        pid = os.posix_spawnp(
            command[0],
            list(command),
            {**os.environ, **(env or {})},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
            ],
            setsid=True,
        )
    ticks = start_ticks(pid)
    if ticks is None:
        raise SystemExit(f"{name} ended at once; its words: {tail(settings, name)}")
    record = Record(name, pid, ticks)
    (settings.records / f"{name}.json").write_text(json.dumps(record.__dict__))
    return record


def stop(settings: ClusterSettings, record: Record, grace_s: float = 15) -> None:
    """End the process by SIGTERM, after the grace by SIGKILL, and forget it."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        descriptor = -1
    if descriptor >= 0:
        try:
            if record.alive:
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                if not _ended(descriptor, grace_s):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    _ended(descriptor, 5)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)
    _reap(record.pid)
    (settings.records / f"{record.name}.json").unlink(missing_ok=True)


def _ended(descriptor: int, timeout_s: float) -> bool:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _reap(pid: int) -> None:
    """Take our own dead child's status, so that no zombie stays while a test session goes on."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def tail(settings: ClusterSettings, name: str, lines: int = 15) -> str:
    """Return the end of a process's log."""
    try:
        text = (settings.logs / f"{name}.log").read_text(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])
