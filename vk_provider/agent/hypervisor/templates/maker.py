"""Making one template: boot a guest on shared memory, save it, try it."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from vk_provider.agent.guest import GuestConnection
from vk_provider.agent.hypervisor.boot import Host, Request, launch
from vk_provider.agent.hypervisor.command_line import Accelerator
from vk_provider.agent.hypervisor.discards import own_memory_number
from vk_provider.agent.hypervisor.machine import Machine
from vk_provider.agent.hypervisor.spec import HypervisorSettings
from vk_provider.agent.hypervisor.templates.key import TemplateKey
from vk_provider.agent.hypervisor.templates.restore import restore_state, save_state
from vk_provider.agent.hypervisor.templates.sealed import SealedTemplate, make_memfd, seal
from vk_provider.agent.hypervisor.vm import guest_addresses
from vk_provider.common.errors import DeadlineExceeded

MAKER_GROUP = "vk-template"
_SAVE_S = 30.0
_PATIENCE = 4
"""How much longer than a pod's VM may take: a maker has the least of a busy host's CPU."""


@dataclass(frozen=True)
class Maker:
    """Makes templates on this host, one at a time. tsc_khz: the host's."""

    host: Host
    settings: HypervisorSettings
    tsc_khz: int

    @property
    def _boot_s(self) -> float:
        return self.settings.cold_deadline_s * _PATIENCE

    @property
    def _restore_s(self) -> float:
        return self.settings.restore_deadline_s * _PATIENCE

    async def make(self, key: TemplateKey) -> SealedTemplate:
        """Return a template that a VM was restored from once. Takes a cold boot and a restore.

        Raises VkError, OSError; leaves nothing then, nor when it is cancelled.
        """
        size = key.ram_mib * 1024 * 1024
        memory = make_memfd("vk-template-memory", size)
        try:
            state = await self._boot_and_save(key, memory)
            seal(memory)
            template = SealedTemplate(key.digest, memory, state, size)
        except BaseException:
            os.close(memory)
            raise
        try:
            template.memory_number = await self._check(key, template)
        except BaseException:
            template.close()
            raise
        return template

    async def _check(self, key: TemplateKey, template: SealedTemplate) -> int | None:
        """Restore a VM and have its guest agent answer. Raises VkError when that fails.

        Returns the descriptor by which its QEMU held the memory.
        """
        with template.in_use() as (memory_fd, state_fd):
            machine = self._launch(key, memory_fd, shared=False)
            guest = GuestConnection(*guest_addresses(machine.run_dir))
            try:
                await machine.connect(self._restore_s)
                await restore_state(machine, state_fd, self._restore_s)
                await machine.qmp.execute("cont")
                await machine.unless_ended(guest.hello(self._restore_s))
                return own_memory_number(machine.process.pid, memory_fd)
            finally:
                machine.process.kill()
                await guest.close()
                await self._end(machine)

    async def _boot_and_save(self, key: TemplateKey, memory: int) -> bytes:
        machine = self._launch(key, memory, shared=True)
        try:
            await machine.connect(self._boot_s)
            opened = [
                machine.expect("VSERPORT_CHANGE", id=port, open=True)
                for port in ("control", "bulk")
            ]
            await machine.qmp.execute("cont")
            # That the guest agent has opened its ports says that it serves. Nobody connects: a
            # template must not remember a host that is gone after the restore.
            try:
                async with asyncio.timeout(self._boot_s):
                    await machine.unless_ended(_all(opened))
            except TimeoutError as exc:
                raise DeadlineExceeded(f"the guest of the template for {key} did not boot") from exc
            return await save_state(machine, _SAVE_S)
        finally:
            machine.process.kill()
            await self._end(machine)

    def _launch(self, key: TemplateKey, memory_fd: int, *, shared: bool) -> Machine:
        run_dir = self.settings.run_dir / MAKER_GROUP
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        request = Request(
            name=MAKER_GROUP,
            accelerator=Accelerator(key.accelerator, self.settings.tb_size_mib, self.tsc_khz),
            vcpus=key.vcpus,
            ram_mib=key.ram_mib,
            uid=self.settings.service_uid,
            netns=None,
            tap_fd=None,
            run_dir=run_dir,
            memory_fd=memory_fd,
            memory_shared=shared,
            incoming=not shared,
        )
        machine = launch(self.host, request, lambda _: None)
        machine.cgroup.yield_cpu()  # a pod that boots cold meanwhile is in more of a hurry
        return machine

    async def _end(self, machine: Machine) -> None:
        await asyncio.shield(machine.kill())
        _remove(machine.run_dir)


async def _all(futures: list[asyncio.Future[dict[str, object]]]) -> None:
    await asyncio.gather(*futures)


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
