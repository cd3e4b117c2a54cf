"""Starts microVMs and finds them again."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from vk_provider.agent.hypervisor.accelerator import (
    decide_accelerator,
    host_cpu,
    host_kvm_access,
    qemu_version,
)
from vk_provider.agent.hypervisor.boot import Host
from vk_provider.agent.hypervisor.cgroups import CgroupManager
from vk_provider.agent.hypervisor.command_line import Accelerator
from vk_provider.agent.hypervisor.guest_image import GuestImage
from vk_provider.agent.hypervisor.launch import use_small_pages
from vk_provider.agent.hypervisor.machine import Machine
from vk_provider.agent.hypervisor.probe import PROBE_GROUP, boot_under_kvm
from vk_provider.agent.hypervisor.process import BoundedOutput, Process
from vk_provider.agent.hypervisor.spec import (
    AcceleratorInfo,
    HypervisorSettings,
    VmRecord,
    VmSpec,
    ram_mib,
)
from vk_provider.agent.hypervisor.starter import RestoreFailedError, Starter
from vk_provider.agent.hypervisor.templates import SealedTemplate, TemplateLibrary
from vk_provider.agent.hypervisor.templates.key import TemplateKey
from vk_provider.agent.hypervisor.templates.maker import MAKER_GROUP, Maker
from vk_provider.agent.hypervisor.tsc import measure_tsc_khz
from vk_provider.agent.hypervisor.vm import Vm
from vk_provider.common.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    Unavailable,
    VkError,
)
from vk_provider.common.logging import get_logger

_log = get_logger("hypervisor")

_ADOPT_S = 5.0
_KILL_S = 10.0


class Hypervisor:
    """All VMs of one agent. `open` before use; `close` leaves the VMs running."""

    def __init__(self, settings: HypervisorSettings, guest: GuestImage) -> None:
        self._settings = settings
        self._guest = guest
        self._cgroups = CgroupManager.of_host(
            f"{settings.cgroup}/{instance_name(settings.state_dir)}"
        )
        self._host = Host(settings.qemu, guest, self._cgroups)
        self._tsc_khz = 0
        self._accelerator: AcceleratorInfo | None = None
        self._library: TemplateLibrary | None = None
        self._booting = 0

    @property
    def accelerator(self) -> AcceleratorInfo:
        """What runs the guests, and why. Known after `open`."""
        if self._accelerator is None:
            raise FailedPrecondition("the hypervisor is not open yet")
        return self._accelerator

    async def open(self) -> None:
        """Find out what this host can do; under 6 s, and at once when it was found out before.

        Raises FailedPrecondition when it cannot run microVMs at all.
        """
        for directory in (self._settings.state_dir, self._settings.run_dir):
            try:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as exc:
                raise FailedPrecondition(
                    f"the hypervisor cannot make its directory {directory}: {exc}"
                ) from exc
        for group in (PROBE_GROUP, MAKER_GROUP):  # of an agent that was killed meanwhile
            await self.remove_cgroup(group)
        version = await qemu_version(self._settings.qemu)
        self._tsc_khz = await measure_tsc_khz()
        self._host = Host(self._settings.qemu, self._guest, self._cgroups, host_kvm_access().groups)
        self._accelerator = await decide_accelerator(
            self._settings.state_dir / "accelerator.json",
            version,
            self._guest.key,
            functools.partial(boot_under_kvm, self._host, self._settings, self._tsc_khz),
        )
        if self._accelerator.name == "tcg":
            use_small_pages()
        if self._settings.templates:
            maker = Maker(self._host, self._settings, self._tsc_khz)
            self._library = TemplateLibrary(self._settings, maker, self._tsc_khz)
            await self._library.open()

    async def close(self) -> None:
        """End what the hypervisor does for itself. VMs go on. May be repeated."""
        if self._library is not None:
            await self._library.close()
            self._library = None
        self._cgroups.remove_parents()

    async def start(self, spec: VmSpec, on_record: Callable[[VmRecord], None]) -> Vm:
        """Start a VM and return it when its guest agent has answered.

        on_record is called, with the pid known, before the guest's first instruction; again when
        a boot had to be repeated. Raises VkError when the VM did not come up, and leaves no
        process and no group then; the same when it is cancelled.
        """
        accelerator = Accelerator(self.accelerator.name, self._settings.tb_size_mib, self._tsc_khz)
        starter = Starter(self._host, self._settings, accelerator, spec, on_record)
        template, reason = await self._template_for(spec)
        try:
            return await self._start(starter, template, reason)
        except OSError as exc:
            raise Unavailable(f"VM {spec.sandbox_id} could not be started: {exc}") from exc

    async def _start(self, starter: Starter, template: SealedTemplate | None, reason: str) -> Vm:
        """Restore the VM where there is a template to restore it from, else boot it."""
        if template is not None and self._library is not None:
            try:
                vm = await starter.restored(template, reason)
                self._library.proven(template)
                return vm
            except RestoreFailedError as exc:
                _log.warning("a restore failed", vm=starter.spec.sandbox_id, error=str(exc))
                await self._library.drop(template, str(exc))
                reason = f"the restore from {reason} failed: {exc}"
            except (DeadlineExceeded, NotFound, Unavailable) as exc:
                # Nothing was restored yet, so nothing is said against the template.
                reason = f"the restore from {reason} did not begin: {exc}"
        self._booting += 1
        try:
            return await starter.cold(reason)
        finally:
            self._booting -= 1

    async def prepare(self, vcpus: int, memory_mib: int) -> bool:
        """Have a template for that shape and wait for it; False where none can be made.

        For an agent that starts, before the first pod of a usual shape comes; and for benchmarks.
        """
        if self._library is None:
            return False
        return await self._library.made(self._key(vcpus, ram_mib(memory_mib)))

    async def prune_templates(self) -> None:
        """Remove from the disk what nobody used for long, and what it has no room for."""
        if self._library is not None:
            await self._library.prune()

    async def adopt(self, record: VmRecord) -> Vm | None:
        """Take over a VM that a former agent started; None when its process is gone.

        A VM whose guest never ran, since the agent died while starting it, is ended and counts as
        gone. One that does not answer at its monitor is returned none the less: it can be killed.
        """
        cgroup = self._cgroups.group(record.cgroup)
        try:
            process = Process.adopt(record.pid, record.start_ticks)
        except NotFound:
            cgroup.remove()
            return None
        machine = Machine(process, cgroup, BoundedOutput.of(record.pid), Path(record.run_dir))
        try:
            state = await machine.connect(_ADOPT_S)
        except VkError as exc:
            _log.warning("an adopted VM's monitor is silent", vm=record.sandbox_id, error=str(exc))
            state = "silent"
        except BaseException:
            await machine.close()
            raise
        if state in ("prelaunch", "inmigrate", "paused") or machine.process.ended.done():
            await machine.kill()
            return None
        machine.cgroup.limit_cpu(record.cpu_milli)
        return Vm(record, machine, [])

    def list_cgroups(self) -> set[str]:
        """Return the ids of all sandboxes whose VM has a control group here, on record or not."""
        return {name for name in self._cgroups.names() if not name.startswith("vk-")}

    async def remove_cgroup(self, sandbox_id: str) -> None:
        """Kill what is in the group of that name and remove it; for VMs that have no record.

        Raises Unavailable when a process in it does not end.
        """
        group = self._cgroups.group(sandbox_id)
        processes: list[Process] = []
        for pid in group.pids():
            try:
                processes.append(Process.open(pid))
            except NotFound:
                continue
        for process in processes:
            process.kill()
        if processes:
            await asyncio.wait([p.ended for p in processes], timeout=_KILL_S)
        for process in processes:
            process.release()
        if not group.remove():
            raise Unavailable(
                f"the control group of sandbox {sandbox_id} still has processes {_KILL_S:g} s "
                "after SIGKILL; the host's storage may hang"
            )

    async def _template_for(self, spec: VmSpec) -> tuple[SealedTemplate | None, str]:
        """Return the template, and which it is; or None, and why."""
        if self._library is None:
            return None, "templates are switched off"
        if not spec.allow_template:
            return None, "no template was wanted for this VM"
        key = self._key(spec.vcpus, spec.ram_mib)
        template, reason = await self._library.find(key)
        if template is None and self._booting >= max(1, (os.cpu_count() or 1) // 2):
            # Cold boots fill the host already. One more takes its share of all the others' time;
            # many VMs at once are there sooner when they wait for the one boot of their template.
            try:
                async with asyncio.timeout(self._settings.cold_deadline_s):
                    await self._library.made(key)
            except TimeoutError:
                return None, f"{reason}, and was waited for in vain"
            return await self._library.find(key)
        return template, reason

    def _key(self, vcpus: int, ram: int) -> TemplateKey:
        kvm = self.accelerator.name == "kvm"
        return TemplateKey(
            vcpus=vcpus,
            ram_mib=ram,
            guest_key=self._guest.key,
            qemu_version=self.accelerator.qemu_version,
            accelerator=self.accelerator.name,
            cpu=host_cpu() if kvm else "",
        )


def instance_name(state_dir: Path) -> str:
    """Return what tells this agent's control groups from another agent's on the same host."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:8]
