"""A QEMU process, ours or one that a former agent left: identity, end, signals, use."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
from pathlib import Path

from vk_provider.common.errors import Internal, NotFound

_STDERR_BYTES = 65536


def start_ticks(pid: int) -> int:
    """Return a process's start time in ticks since boot (proc(5), stat, field 22).

    Raises NotFound when there is none, or only what is left until somebody has waited for it.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError) as exc:
        raise NotFound(f"no process {pid}") from exc
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
    if fields[0] in ("Z", "X"):
        raise NotFound(f"process {pid} has ended")
    return int(fields[19])


def private_memory_bytes(pid: int) -> int:
    """Return the pages that are the process's own (RssAnon); 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in text.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


class BoundedOutput:
    """Somewhere for QEMU to complain that neither grows nor needs a reader: a sealed memfd."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def make(cls) -> BoundedOutput:
        fd = os.memfd_create("qemu-stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, _STDERR_BYTES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        return cls(fd)

    @classmethod
    def of(cls, pid: int) -> BoundedOutput | None:
        """Open the output of a running process again; None when it is gone."""
        try:
            return cls(os.open(f"/proc/{pid}/fd/2", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None

    def text(self) -> str:
        data = os.pread(self.fd, _STDERR_BYTES, 0).rstrip(b"\0")
        return data.decode(errors="replace").strip()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Process:
    """One process, held by a pidfd, so that neither a signal nor its end can be another's.

    `ended` is done when it has ended: with the exit status (negative: the signal), or with None
    for a process that was not our child.
    """

    def __init__(self, pid: int, pidfd: int, *, child: bool) -> None:
        self.pid = pid
        self.start_ticks = 0
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._pidfd = pidfd
        self._child = child
        asyncio.get_running_loop().add_reader(pidfd, self._on_end)

    @classmethod
    def of_child(cls, child: subprocess.Popen[bytes]) -> Process:
        """Take a child over: it is waited for here when it ends, and no more by its Popen."""
        process = cls(child.pid, os.pidfd_open(child.pid), child=True)
        child.returncode = 0
        try:
            with contextlib.suppress(NotFound):  # it has ended, which `ended` will tell
                process.start_ticks = start_ticks(child.pid)
        except OSError:
            process.undo_start()
            raise
        return process

    @classmethod
    def adopt(cls, pid: int, ticks: int) -> Process:
        """Take over the process with that pid and start time. Raises NotFound."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as exc:
            raise NotFound(f"no process {pid}") from exc
        # Asked after the open: from here on the number cannot be given to another process.
        try:
            same = start_ticks(pid) == ticks
        except NotFound:
            same = False
        if not same:
            os.close(pidfd)
            raise NotFound(f"process {pid} has ended, or is another one by now")
        process = cls(pid, pidfd, child=False)
        process.start_ticks = ticks
        return process

    @classmethod
    def open(cls, pid: int) -> Process:
        """Hold the process that has that pid now. Raises NotFound."""
        return cls.adopt(pid, start_ticks(pid))

    def kill(self) -> None:
        """Send SIGKILL; nothing happens when it has ended."""
        if self._pidfd < 0 or self.ended.done():
            return
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def undo_start(self) -> None:
        """End a child that was only just started, and wait for it here and now."""
        self.kill()
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        self.ended.set_result(-signal.SIGKILL)
        self.release()

    def release(self) -> None:
        """Look at it no more; it goes on."""
        if self._pidfd < 0:
            return
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if not self.ended.done():
            self.ended.cancel()

    def _on_end(self) -> None:
        code: int | None = None
        if self._child:
            end = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            if end is None:
                raise Internal(f"process {self.pid} was reported as ended and runs")
            code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        if not self.ended.done():
            self.ended.set_result(code)
        self.release()
