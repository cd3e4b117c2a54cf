"""A machine, with a sleeping process for QEMU and a played monitor."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from vk_provider.agent.hypervisor import machine as module
from vk_provider.agent.hypervisor.cgroups import Cgroup, CgroupManager, Hierarchies
from vk_provider.agent.hypervisor.machine import MONITOR_SOCKET, Machine
from vk_provider.agent.hypervisor.process import BoundedOutput, Process, start_ticks
from vk_provider.agent.hypervisor.spec import VmUsage
from vk_provider.common.errors import NotFound, Unavailable


class PlayedMonitor:
    """Answers every command with nothing, or with what `answers` says; notes them all."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.answers: dict[str, Any] = {"query-status": {"status": "running"}}
        self.said = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._say(QMP={})
        while line := await reader.readline():
            message = json.loads(line)
            self.commands.append(message["execute"])
            self.said.set()
            value = self.answers.get(message["execute"], {})
            self._say(id=message["id"], **{"return": value})

    def event(self, name: str, **data: Any) -> None:
        self._say(event=name, data=data)

    async def until(self, command: str) -> None:
        while command not in self.commands:
            self.said.clear()
            await self.said.wait()

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()

    def _say(self, **message: Any) -> None:
        assert self._writer is not None
        self._writer.write(json.dumps(message).encode() + b"\n")


def sleeping() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"])


@asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[tuple[Machine, PlayedMonitor]]:
    monitor = PlayedMonitor()
    cgroups = CgroupManager(Hierarchies(tmp_path / "cg", {}), "vk")
    output = BoundedOutput.make()
    os.pwrite(output.fd, b"complaint\n", 0)
    child = sleeping()
    machine = Machine(Process.of_child(child), cgroups.group("x"), output, tmp_path)
    server = await asyncio.start_unix_server(monitor.serve, tmp_path / MONITOR_SOCKET)
    try:
        await machine.connect(10)
        yield machine, monitor
    finally:
        machine.process.kill()
        await machine.kill()
        server.close()
        await monitor.close()


async def test_a_guest_that_powers_off_ends_well(tmp_path: Path) -> None:
    async with running(tmp_path) as (machine, monitor):
        monitor.event("SHUTDOWN", guest=True, reason="guest-shutdown")
        monitor.answers["ringbuf-read"] = "bye\n"
        async with asyncio.TaskGroup() as tasks:
            end = tasks.create_task(machine.wait())
            await monitor.until("quit")
            machine.process.kill()
        assert (end.result().code, end.result().message) == (0, "")
        assert await machine.wait() == end.result()


async def test_a_panic_is_told_with_the_consoles_end(tmp_path: Path) -> None:
    async with running(tmp_path) as (machine, monitor):
        monitor.answers["ringbuf-read"] = "\x1b[31mKernel panic\x00 - not syncing\n"
        monitor.event("SHUTDOWN", guest=True, reason="guest-reset")
        async with asyncio.TaskGroup() as tasks:
            end = tasks.create_task(machine.wait())
            await monitor.until("quit")
            machine.process.kill()
        assert "guest-reset" in end.result().message
        assert "[31mKernel panic - not syncing" in end.result().message
        assert "\x1b" not in end.result().message


async def test_a_killed_qemu_is_told_with_its_complaint(tmp_path: Path) -> None:
    async with running(tmp_path) as (machine, _):
        machine.process.kill()
        end = await machine.wait()
        assert end.code == -9
        assert end.message == "QEMU was ended by SIGKILL; QEMU said: complaint"


async def test_work_with_a_guest_ends_when_the_guest_does(tmp_path: Path) -> None:
    async with running(tmp_path) as (machine, _):
        machine.process.kill()
        with pytest.raises(Unavailable, match="has ended"):
            await machine.unless_ended(asyncio.sleep(1000))


async def test_a_works_own_error_comes_through(tmp_path: Path) -> None:
    async def fail() -> None:
        raise NotFound("nothing there")

    async with running(tmp_path) as (machine, _):
        with pytest.raises(NotFound, match="nothing there"):
            await machine.unless_ended(fail())


async def test_events_are_awaited_by_their_values(tmp_path: Path) -> None:
    async with running(tmp_path) as (machine, monitor):
        wanted = machine.expect("DEVICE_DELETED", device="lun1")
        monitor.event("DEVICE_DELETED", device="lun2")
        monitor.event("DEVICE_DELETED", device="lun1", path="/x")
        assert (await wanted)["path"] == "/x"


async def test_a_full_disk_stops_a_guest_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RESUME_S", 0)
    async with running(tmp_path) as (_, monitor):
        monitor.event("BLOCK_IO_ERROR", action="stop", reason="No space left on device")
        await monitor.until("cont")


async def test_adoption_knows_another_process_by_its_start(tmp_path: Path) -> None:
    async with running(tmp_path) as (machine, _):
        pid = machine.process.pid
        with pytest.raises(NotFound, match="another one"):
            Process.adopt(pid, start_ticks(pid) + 1)
        again = Process.adopt(pid, start_ticks(pid))
        machine.process.kill()
        assert await again.ended is None


async def test_who_let_go_of_a_vm_neither_waits_nor_kills(tmp_path: Path) -> None:
    async with running(tmp_path) as (machine, _):
        again = Process.adopt(machine.process.pid, machine.process.start_ticks)
        held = Machine(again, machine.cgroup, None, tmp_path)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(held.wait())
            await asyncio.sleep(0)
            await held.close()
        assert waiting.cancelled()
        with pytest.raises(Unavailable, match="let go"):
            await held.kill()
        assert start_ticks(machine.process.pid) == machine.process.start_ticks


def test_complaints_are_bounded() -> None:
    output = BoundedOutput.make()
    subprocess.run(["sh", "-c", "yes | head -c 200000"], stdout=output.fd, stderr=output.fd)
    assert len(output.text()) <= 65536
    output.close()


async def test_memory_is_read_again_once_the_vm_has_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = {"cpu_ns": 10_000_000, "memory": 100}
    monkeypatch.setattr(Cgroup, "cpu_ns", lambda _: used["cpu_ns"])
    monkeypatch.setattr(module, "private_memory_bytes", lambda _: used["memory"])
    async with running(tmp_path) as (machine, _):
        assert machine.sample() == VmUsage(10_000_000, 100)
        used.update(cpu_ns=29_000_000, memory=200)
        assert machine.sample() == VmUsage(29_000_000, 100)
        used.update(cpu_ns=30_000_000)
        assert machine.sample() == VmUsage(30_000_000, 200)


def ended_at_once() -> subprocess.Popen[bytes]:
    child = subprocess.Popen(["sh", "-c", "exit 3"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return child


async def test_a_child_that_ended_at_once_is_told_of() -> None:
    assert await Process.of_child(ended_at_once()).ended == 3
