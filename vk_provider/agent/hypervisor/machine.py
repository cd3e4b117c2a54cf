"""One QEMU and its monitor: what it says, how it ended, its end. Knows no guest and no disk."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from vk_provider.agent.hypervisor.cgroups import Cgroup
from vk_provider.agent.hypervisor.process import BoundedOutput, Process, private_memory_bytes
from vk_provider.agent.hypervisor.qmp import QmpClient
from vk_provider.agent.hypervisor.spec import VmExit, VmUsage
from vk_provider.common.errors import DeadlineExceeded, Internal, Unavailable, VkError
from vk_provider.common.logging import get_logger

_log = get_logger("hypervisor")

_Result = TypeVar("_Result")
_QUIT_S = 1.0
_END_S = 10.0
_CONSOLE_BYTES = 65536
_TAIL_CHARACTERS = 2000
_RESUME_S = 5.0
"""How long a guest that a full host disk has stopped waits between two tries."""
_GOES_ON_S = 1.0
"""A guest that has run for so long after a try has had its write done."""
_NEXT_MEMORY_NS = 20_000_000  # a VM that has not run holds what it held

MONITOR_SOCKET = "qmp.sock"


class Machine:
    """A QEMU process, held until `kill` or `close`. Made by launching it or by adoption."""

    def __init__(
        self, process: Process, cgroup: Cgroup, output: BoundedOutput | None, run_dir: Path
    ) -> None:
        self.process = process
        self.cgroup = cgroup
        self.run_dir = run_dir
        self._output = output
        self._qmp: QmpClient | None = None
        self._expected: list[tuple[str, dict[str, Any], asyncio.Future[dict[str, Any]]]] = []
        self._stopped: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._exit: VmExit | None = None
        self._ending = asyncio.Lock()
        self._resuming: asyncio.TimerHandle | None = None
        self._held = asyncio.Event()
        self._runs = asyncio.Event()
        self._runs.set()
        self._last_usage = VmUsage(0, 0)
        self._memory_read_at_ns = 0

    # -- the monitor --

    @property
    def qmp(self) -> QmpClient:
        if self._qmp is None:
            raise Unavailable(f"QEMU {self.process.pid} has no monitor connected")
        return self._qmp

    async def connect(self, timeout_s: float) -> str:
        """Connect the monitor and return QEMU's run state.

        Raises DeadlineExceeded, or Unavailable with QEMU's complaint when it has ended.
        """
        path = self.run_dir / MONITOR_SOCKET
        try:
            async with asyncio.timeout(timeout_s):
                self._qmp = await self.unless_ended(QmpClient.connect(path, self._on_event))
                status = await self._qmp.execute("query-status")
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"QEMU {self.process.pid} did not answer at its monitor within {timeout_s:g} s"
            ) from exc
        except Unavailable as exc:
            complaint = self._complaint()
            said = "" if complaint in str(exc) else complaint
            raise Unavailable(f"{exc}{said}") from exc
        state = str(status["status"])
        if state in ("shutdown", "guest-panicked", "internal-error"):
            self._on_stopped(state)
        elif state == "io-error":
            self._resume_later("unknown, since before the agent's start")
        return state

    def expect(self, event: str, **match: Any) -> asyncio.Future[dict[str, Any]]:
        """Return a future of the next event of that name with those values. Drop: `cancel`."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._expected.append((event, match, future))
        return future

    async def unless_ended(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Await `work`; raises Unavailable at once when the VM ends before it is done."""
        results: list[_Result] = []
        errors: list[Exception] = []

        async def run() -> None:
            try:
                results.append(await work)
            except Exception as exc:  # noqa: BLE001 -- raised again below, past the group
                errors.append(exc)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(run(), name=f"vm-{self.process.pid}-work")
            either: list[asyncio.Future[Any]] = [task, self.process.ended, self._stopped]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
        if results:
            return results[0]
        if errors and not self.gone:
            raise errors[0]
        raise Unavailable(f"the VM of QEMU {self.process.pid} has ended{self._complaint()}")

    @property
    def gone(self) -> bool:
        """Whether the guest runs no more."""
        return self.process.ended.done() or self._stopped.done()

    @property
    def held(self) -> bool:
        """Whether the guest stands still until there is room on the host's disk."""
        return self._held.is_set()

    async def until_held(self, held: bool) -> None:
        """Wait until it stands still so, or (False) until it goes on."""
        await (self._held if held else self._runs).wait()

    # -- its end --

    async def wait(self) -> VmExit:
        """Wait for the end of the guest, take its last words and end QEMU. May be repeated.

        Is cancelled when somebody lets go of the VM meanwhile: it has not ended, and no caller may
        take it for that.
        """
        either: list[asyncio.Future[Any]] = [self.process.ended, self._stopped]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self.process.ended.cancelled():
            raise asyncio.CancelledError
        async with self._ending:
            if self._exit is None:
                self._exit = await self._last_words()
            return self._exit

    async def kill(self) -> None:
        """End QEMU and remove its group; returns when both are gone. May be repeated.

        Cancelled, it leaves QEMU with a SIGKILL on its way. Raises Unavailable after `close`,
        DeadlineExceeded when the host's kernel does not let QEMU end.
        """
        if self.process.ended.cancelled():
            raise Unavailable(f"QEMU {self.process.pid} was let go; adopt its VM again first")
        try:
            self.sample()
            await self._quit()
        finally:
            self.process.kill()
        try:
            async with asyncio.timeout(_END_S):
                await asyncio.wait([self.process.ended])
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"QEMU {self.process.pid} has not ended {_END_S:g} s after SIGKILL; the host's "
                "storage may hang"
            ) from exc
        if not self.cgroup.remove():
            _log.warning("a VM's control group is not empty yet", group=str(self.cgroup.relative))
        await self.close()

    async def close(self) -> None:
        """Let go of it; the VM lives on. May be repeated."""
        if self._resuming is not None:
            self._resuming.cancel()
        if self._qmp is not None:
            self._qmp.close()
        self.process.release()
        if self._output is not None:
            self._output.close()
        for _, _, future in self._expected:
            future.cancel()
        self._expected.clear()

    def sample(self) -> VmUsage:
        """Return what QEMU uses; after its end what it used last."""
        cpu_ns = self.cgroup.cpu_ns()
        if cpu_ns:
            memory = self._last_usage.private_memory_bytes
            if self.process.ended.done():
                memory = 0
            elif cpu_ns - self._memory_read_at_ns >= _NEXT_MEMORY_NS or not memory:
                memory = private_memory_bytes(self.process.pid)
                self._memory_read_at_ns = cpu_ns
            self._last_usage = VmUsage(cpu_ns, memory)
        return self._last_usage

    async def console(self) -> str:
        """Take what the guest's console has said since the last time, as printable text."""
        text = await self.qmp.execute(
            "ringbuf-read", device="console", size=_CONSOLE_BYTES, format="utf8"
        )
        return "".join(c for c in str(text) if c.isprintable() or c == "\n")

    async def _last_words(self) -> VmExit:
        if self.process.ended.done():
            code = self.process.ended.result()
            self.sample()
            bounded = "; it had reached the bound of its memory" if self.cgroup.oom_kills() else ""
            return VmExit(code, _describe(code) + bounded + self._complaint())
        reason = self._stopped.result()
        self.sample()
        console = ""
        try:
            async with asyncio.timeout(_QUIT_S):
                console = await self.console()
        except (TimeoutError, VkError) as exc:
            _log.warning("a VM's console cannot be read", pid=self.process.pid, error=str(exc))
        await self._quit()
        self.process.kill()
        await asyncio.wait([self.process.ended], timeout=_END_S)
        if reason == "guest-shutdown":
            return VmExit(0, "")
        tail = console.strip()[-_TAIL_CHARACTERS:]
        said = f"; its console ended with: {tail}" if tail else ""
        return VmExit(0, f"the guest stopped by itself ({reason}){said}")

    async def _quit(self) -> None:
        if self._qmp is None or self.process.ended.done():
            return
        try:
            async with asyncio.timeout(_QUIT_S):
                await self._qmp.execute("quit")
                await asyncio.wait([self.process.ended])
        except (TimeoutError, VkError):
            return  # the caller's SIGKILL follows

    def _complaint(self) -> str:
        text = self._output.text() if self._output is not None and self._output.fd >= 0 else ""
        return f"; QEMU said: {text[-_TAIL_CHARACTERS:]}" if text else ""

    # -- events --

    def _on_event(self, name: str, data: dict[str, Any]) -> None:
        if name == "SHUTDOWN":
            self._on_stopped(str(data.get("reason", "unknown")))
        elif name == "GUEST_PANICKED":
            self._on_stopped("guest-panic")
        elif name == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            self._resume_later(str(data.get("reason")))
        for entry in list(self._expected):
            event, match, future = entry
            if event == name and all(data.get(k) == v for k, v in match.items()):
                self._expected.remove(entry)
                if not future.done():
                    future.set_result(data)

    def _resume_later(self, reason: str) -> None:
        """QEMU stops a guest whose disk's file finds no space; that loses nothing but time."""
        if not self.held:
            _log.warning(
                "a VM waits, since the host's disk takes no more writes; make room there",
                vm=str(self.run_dir),
                reason=reason,
            )
        self._runs.clear()
        self._held.set()
        self._call_later(_RESUME_S, self._resume)

    def _resume(self) -> None:
        if self._qmp is not None and not self.gone:
            self._qmp.post("cont")
            self._call_later(_GOES_ON_S, self._goes_on)

    def _goes_on(self) -> None:
        _log.info("a VM goes on: the host's disk takes writes again", vm=str(self.run_dir))
        self._held.clear()
        self._runs.set()

    def _call_later(self, delay_s: float, step: Callable[[], None]) -> None:
        """Take that step in place of the one that was to come."""
        if self._resuming is not None:
            self._resuming.cancel()
        self._resuming = asyncio.get_running_loop().call_later(delay_s, step)

    def _on_stopped(self, reason: str) -> None:
        if not self._stopped.done():
            self._stopped.set_result(reason)


def _describe(code: int | None) -> str:
    if code is None:
        return "QEMU ended while the agent that had started it was away"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError as exc:
            raise Internal(f"QEMU ended with the impossible status {code}") from exc
        return f"QEMU was ended by {name}"
    return f"QEMU ended with status {code}"
