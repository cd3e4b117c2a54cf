"""A VM that is ready to become a sandbox: its tap, its scratch disk in place, nobody's yet."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.context import Context
from vk_provider.agent.disks import SCRATCH_LUN
from vk_provider.agent.guest_calls import CALL_S, ask
from vk_provider.agent.network import Tap
from vk_provider.agent.phases import Phases
from vk_provider.agent.ports import Machine, MachineOrder
from vk_provider.agent.scratch import make_scratch_disk
from vk_provider.agent.settings import MIB
from vk_provider.agent.together import together

# QEMU's own work beside the vCPUs': emulated devices, the monitor, the translator.
_CPU_MARGIN_MILLI = 1000


@dataclass(frozen=True)
class Seed:
    """What must be known to start a VM, whoever will get it."""

    machine_id: str
    uid: int
    shape: pb.Shape
    scratch_bytes: int


async def boot(
    context: Context,
    seed: Seed,
    tap: Tap,
    phases: Phases,
    on_record: Callable[[str], None],
    on_machine: Callable[[Machine], None],
) -> None:
    """Start a VM and mount its scratch disk. Takes the tap's descriptor over.

    `on_record` is called, before the guest runs, with what the VM is found again by; `on_machine`
    as soon as there is a VM to end. Raises kinds of error; what was made is the caller's to end.
    """
    run_dir = context.settings.machine_run_dir(seed.machine_id)
    scratch = context.settings.machine_state_dir(seed.machine_id) / "scratch.img"
    machines: list[Machine] = []

    async def disk() -> None:
        with phases.step("scratch"):
            await make_scratch_disk(scratch, seed.scratch_bytes)

    async def vm() -> None:
        with phases.step("vm"):
            machine = await context.machines.start(_order(context, seed, tap), on_record)
        machines.append(machine)
        on_machine(machine)
        phases.take(machine.vm.phases)

    try:
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with together() as group:
            group.create_task(disk(), name=f"scratch disk of {seed.machine_id}")
            group.create_task(vm(), name=f"VM {seed.machine_id}")
    finally:
        os.close(tap.fd)
    (machine,) = machines
    with phases.step("scratch_mount"):
        await machine.vm.attach_disk(SCRATCH_LUN, scratch, read_only=False)
        await ask(
            machine.guest.control.MountDisk(
                guest_pb2.MountDiskRequest(lun=SCRATCH_LUN, scratch=True), timeout=CALL_S
            ),
            f"mounting the scratch disk {scratch}",
        )


def _order(context: Context, seed: Seed, tap: Tap) -> MachineOrder:
    return MachineOrder(
        sandbox_id=seed.machine_id,
        vcpus=seed.shape.vcpus,
        memory_mib=seed.shape.memory_bytes // MIB,
        cpu_milli=seed.shape.cpu_milli + _CPU_MARGIN_MILLI,
        uid=seed.uid,
        netns=tap.netns,
        tap_fd=tap.fd,
        run_dir=context.settings.machine_run_dir(seed.machine_id),
        allow_template=context.settings.templates,
    )
