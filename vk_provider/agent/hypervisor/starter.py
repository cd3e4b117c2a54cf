"""One start of one VM, cold or from a template, until its guest agent answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vk_provider._pb import guest_pb2 as pb
from vk_provider.agent.guest import GuestConnection
from vk_provider.agent.hypervisor.boot import Host, Request, launch
from vk_provider.agent.hypervisor.command_line import Accelerator
from vk_provider.agent.hypervisor.discards import DiscardsNotAnsweredError, check_memory_number
from vk_provider.agent.hypervisor.machine import Machine
from vk_provider.agent.hypervisor.process import Process
from vk_provider.agent.hypervisor.spec import (
    CONTRACT_VERSION,
    HypervisorSettings,
    VmRecord,
    VmSpec,
)
from vk_provider.agent.hypervisor.templates import SealedTemplate, restore_state
from vk_provider.agent.hypervisor.vm import Vm, guest_addresses
from vk_provider.common.errors import DeadlineExceeded, Unavailable, VkError
from vk_provider.common.logging import get_logger

_log = get_logger("hypervisor")

OnRecord = Callable[[VmRecord], None]

_MONITOR_S = 10.0


class RestoreFailedError(VkError):
    """A VM was not to be had from a template: it may be a bad one."""


@dataclass
class Starter:
    """Starts the VM of one spec. `phases` tells where the time went: (name, start_ns, end_ns)."""

    host: Host
    settings: HypervisorSettings
    accelerator: Accelerator
    spec: VmSpec
    on_record: OnRecord
    phases: list[tuple[str, int, int]] = field(default_factory=list)

    async def cold(self, reason: str) -> Vm:
        """Boot; again when a boot hangs, which under TCG and load can happen.

        Raises DeadlineExceeded, Unavailable; leaves nothing of the VM then.
        """
        failed = 0
        while True:
            said = f"cold: {reason}"
            if failed:
                said += f"; {failed} boot(s) before it missed the deadline"
            try:
                return await self._cold_once(said)
            except DeadlineExceeded as exc:
                failed += 1
                _log.warning("a boot failed", vm=self.spec.sandbox_id, tries=failed, error=str(exc))
                if failed >= self.settings.attempts:
                    raise DeadlineExceeded(
                        f"VM {self.spec.sandbox_id} did not boot in {failed} tries: {exc}"
                    ) from exc

    async def restored(self, template: SealedTemplate, reason: str) -> Vm:
        """Restore. Raises RestoreFailedError where the template may be at fault, other VkErrors or
        OSError where it is not; leaves nothing of the VM then.
        """
        try:
            return await self._restored_once(template, reason)
        except DiscardsNotAnsweredError as exc:
            _log.warning("restored VMs will not give memory back", error=str(exc))
            template.memory_number = None
            self.phases.clear()
            return await self._restored_once(template, reason)

    async def _restored_once(self, template: SealedTemplate, reason: str) -> Vm:
        deadline_s, number = self.settings.restore_deadline_s, template.memory_number
        with template.in_use() as (memory_fd, state_fd):
            machine, record = self._launch("template", reason, memory_fd, number)
            guest = GuestConnection(*guest_addresses(self.spec.run_dir))
            try:
                with self._phase("vm_monitor"):
                    await machine.connect(deadline_s)
                if number is not None:
                    check_memory_number(machine.process.pid, memory_fd, number)
                try:
                    with self._phase("vm_restore"):
                        await restore_state(machine, state_fd, deadline_s)
                    with self._phase("vm_answer"):
                        hello = await self._run(machine, guest, deadline_s)
                except VkError as exc:
                    raise RestoreFailedError(str(exc)) from exc
            except BaseException:
                await _undo(machine, guest)
                raise
        return Vm(record, machine, self.phases, guest, hello)

    async def _cold_once(self, reason: str) -> Vm:
        machine, record = self._launch("cold", reason)
        guest = GuestConnection(*guest_addresses(self.spec.run_dir))
        try:
            with self._phase("vm_monitor"):
                await machine.connect(_MONITOR_S)
            with self._phase("vm_boot"):
                hello = await self._run(machine, guest, self.settings.cold_deadline_s)
        except BaseException:
            await _undo(machine, guest)
            raise
        return Vm(record, machine, self.phases, guest, hello)

    async def _run(
        self, machine: Machine, guest: GuestConnection, deadline_s: float
    ) -> pb.HelloResponse:
        """Let the guest run and wait for its agent; a failure quotes the guest's console."""
        await machine.qmp.execute("cont")
        guest.connect()
        try:
            hello = await machine.unless_ended(guest.hello(deadline_s))
        except DeadlineExceeded as exc:
            tail = (await machine.console()).strip()[-1000:]
            said = f"; its console ended with: {tail}" if tail else "; its console said nothing"
            raise DeadlineExceeded(f"{exc}{said}") from exc
        except Unavailable as exc:
            end = await machine.wait()
            raise Unavailable(f"the VM ended before it answered: {end.message or exc}") from exc
        machine.cgroup.limit_cpu(self.spec.cpu_milli)
        return hello

    def _launch(
        self,
        mode: str,
        reason: str,
        memory_fd: int | None = None,
        memory_number: int | None = None,
    ) -> tuple[Machine, VmRecord]:
        records: list[VmRecord] = []

        def on_process(process: Process) -> None:
            records.append(self._record(process, mode, reason))
            self.on_record(records[0])

        with self._phase("vm_spawn"):
            machine = launch(self.host, self._request(memory_fd, memory_number), on_process)
        return machine, records[0]

    def _request(self, memory_fd: int | None, memory_number: int | None) -> Request:
        return Request(
            name=self.spec.sandbox_id,
            accelerator=self.accelerator,
            vcpus=self.spec.vcpus,
            ram_mib=self.spec.ram_mib,
            uid=self.spec.uid,
            netns=self.spec.netns,
            tap_fd=self.spec.tap_fd,
            run_dir=self.spec.run_dir,
            memory_fd=memory_fd,
            memory_number=memory_number,
            incoming=memory_fd is not None,
        )

    def _record(self, process: Process, mode: str, reason: str) -> VmRecord:
        return VmRecord(
            sandbox_id=self.spec.sandbox_id,
            pid=process.pid,
            start_ticks=process.start_ticks,
            run_dir=str(self.spec.run_dir),
            uid=self.spec.uid,
            cgroup=self.spec.sandbox_id,
            start_mode=mode,
            start_reason=reason,
            contract_version=CONTRACT_VERSION,
            memory_mib=self.spec.memory_mib,
            cpu_milli=self.spec.cpu_milli,
        )

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Note how long the body took, also when it fails."""
        start = time.time_ns()
        try:
            yield
        finally:
            self.phases.append((name, start, time.time_ns()))


async def _undo(machine: Machine, guest: GuestConnection) -> None:
    """Leave nothing of a start that failed or was cancelled; short, and to its end."""
    machine.process.kill()
    await asyncio.shield(guest.close())
    await asyncio.shield(machine.kill())
