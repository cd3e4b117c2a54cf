"""Real machines: QEMU behind the core's port."""

from __future__ import annotations

from collections.abc import Callable

from vk_provider.agent.guest_words import guest_words
from vk_provider.agent.hypervisor import Hypervisor, Vm, VmRecord, VmSpec
from vk_provider.agent.ports import Machine, MachineOrder


class QemuMachines:
    """Implements `ports.Machines`."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor

    async def start(self, order: MachineOrder, on_record: Callable[[str], None]) -> Machine:
        spec = VmSpec(
            sandbox_id=order.sandbox_id,
            vcpus=order.vcpus,
            memory_mib=order.memory_mib,
            cpu_milli=order.cpu_milli,
            uid=order.uid,
            netns=order.netns,
            tap_fd=order.tap_fd,
            run_dir=order.run_dir,
            allow_template=order.allow_template,
        )
        vm = await self._hypervisor.start(spec, lambda record: on_record(record.to_json()))
        return _machine(vm)

    async def prepare(self, vcpus: int, memory_mib: int) -> bool:
        return await self._hypervisor.prepare(vcpus, memory_mib)

    async def prune_templates(self) -> None:
        await self._hypervisor.prune_templates()

    async def adopt(self, record: str) -> Machine | None:
        if not record:
            return None
        vm = await self._hypervisor.adopt(VmRecord.from_json(record))
        return None if vm is None else _machine(vm)

    async def destroy(self, record: str) -> None:
        known = VmRecord.from_json(record)
        vm = await self._hypervisor.adopt(known)
        if vm is not None:
            await vm.kill()
        await self._hypervisor.remove_cgroup(known.cgroup)

    def list_leftovers(self) -> set[str]:
        return self._hypervisor.list_cgroups()

    async def remove_leftover(self, sandbox_id: str) -> None:
        await self._hypervisor.remove_cgroup(sandbox_id)


def _machine(vm: Vm) -> Machine:
    hello = vm.hello
    return Machine(
        vm=vm,
        guest=vm.guest,
        start_mode=vm.record.start_mode,
        start_reason=vm.record.start_reason,
        guest_kernel=guest_words(hello.kernel_release, 100) if hello else "",
        guest_version=guest_words(hello.guest_version, 100) if hello else "",
    )
