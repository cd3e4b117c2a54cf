"""How a sandbox starts: network and scratch disk, the VM, its identity, its volumes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent import guest_clock
from vk_provider.agent.context import Context
from vk_provider.agent.disks import SCRATCH_LUN, mount_image
from vk_provider.agent.guest_calls import CALL_S, ask
from vk_provider.agent.network import Attachment
from vk_provider.agent.phases import Phases
from vk_provider.agent.ports import Machine, MachineOrder
from vk_provider.agent.sandbox import Sandbox
from vk_provider.agent.scratch import make_scratch_disk
from vk_provider.agent.together import together
from vk_provider.agent.usage_records import usage_record
from vk_provider.agent.volumes import image_refs, put_volume_request

MIB = 1024 * 1024
_ENTROPY_BYTES = 256
# QEMU's own work beside the vCPUs': emulated devices, the monitor, the translator.
_CPU_MARGIN_MILLI = 750


async def start_machine(
    context: Context, sandbox: Sandbox, request: pb.RunSandboxRequest, phases: Phases
) -> None:
    """Take a recorded sandbox to a configured VM with its volumes. Raises kinds of error.

    Leaves what it made to the caller, who takes the sandbox down when this fails.
    """
    record, settings = sandbox.record, context.settings
    run_dir = settings.sandbox_run_dir(sandbox.id)
    scratch = settings.sandbox_state_dir(sandbox.id) / "scratch.img"
    run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    size = request.ephemeral_storage_limit_bytes or settings.scratch_bytes

    async def disk() -> None:
        with phases.step("scratch"):
            await make_scratch_disk(scratch, size)

    async def machine() -> tuple[Machine, Attachment]:
        with phases.step("network"):
            attachment = await context.network.set_up(
                sandbox.id, request.pod, list(request.port_mappings)
            )
        record.status.ips[:] = attachment.ips
        try:
            with phases.step("vm"):
                started = await context.machines.start(
                    _order(context, sandbox, attachment),
                    lambda found: _started(context, sandbox, found),
                )
        finally:
            os.close(attachment.tap_fd)
        sandbox.machine = started
        return started, attachment

    async with together() as group:
        group.create_task(disk(), name=f"scratch disk of {sandbox.id}")
        running = group.create_task(machine(), name=f"VM of {sandbox.id}")
    started, attachment = running.result()
    phases.take(started.vm.phases)
    status = record.status
    status.start_mode, status.start_reason = started.start_mode, started.start_reason
    status.guest_kernel, status.guest_version = started.guest_kernel, started.guest_version
    with phases.step("configure"):
        await _configure(context, sandbox, request, attachment.interface, scratch_path=str(scratch))
    async with together() as group:
        group.create_task(_set_clock(context, sandbox), name=f"clock of {sandbox.id}")
        with phases.step("volumes"):
            await _make_volumes(context, sandbox, list(request.volumes))


def _order(context: Context, sandbox: Sandbox, attachment: Attachment) -> MachineOrder:
    shape = sandbox.record.status.shape
    return MachineOrder(
        sandbox_id=sandbox.id,
        vcpus=shape.vcpus,
        memory_mib=shape.memory_bytes // MIB,
        cpu_milli=shape.cpu_milli + _CPU_MARGIN_MILLI,
        uid=sandbox.record.uid,
        netns=attachment.netns,
        tap_fd=attachment.tap_fd,
        run_dir=context.settings.sandbox_run_dir(sandbox.id),
        allow_template=context.settings.templates,
    )


def _started(context: Context, sandbox: Sandbox, found: str) -> None:
    """Write down how the VM is found again; billing begins here."""
    sandbox.record.vm = found
    sandbox.record.started_at_ns = context.clock.now_ns()
    context.save(sandbox)
    sandbox.usage = usage_record(sandbox, context.clock.now_ns())
    context.store.put_usage([sandbox.usage])


async def _configure(
    context: Context,
    sandbox: Sandbox,
    request: pb.RunSandboxRequest,
    interface: guest_pb2.NetworkInterface,
    *,
    scratch_path: str,
) -> None:
    machine = sandbox.running_machine()
    attach = machine.vm.attach_disk
    control = machine.guest.control
    configure = guest_pb2.ConfigureRequest(
        sandbox_id=sandbox.id,
        hostname=request.hostname,
        resolv_conf=request.resolv_conf,
        clock_ns=context.clock.now_ns(),
        entropy=os.urandom(_ENTROPY_BYTES),
        machine_id=sandbox.id,  # 32 hex digits, and one of its kind
        interface=interface,
        sysctls=dict(request.sysctls),
        share_process_namespace=request.share_process_namespace,
    )

    async def scratch() -> None:
        await attach(SCRATCH_LUN, context.settings.sandbox_state_dir(sandbox.id) / "scratch.img",
                     read_only=False)  # fmt: skip
        await ask(
            control.MountDisk(
                guest_pb2.MountDiskRequest(lun=SCRATCH_LUN, scratch=True), timeout=CALL_S
            ),
            f"mounting the scratch disk {scratch_path}",
        )

    async with together() as group:
        group.create_task(scratch(), name=f"scratch disk into {sandbox.id}")
        await ask(control.Configure(configure, timeout=CALL_S), f"configuring sandbox {sandbox.id}")


async def _set_clock(context: Context, sandbox: Sandbox) -> None:
    """Make good what Configure's time was late: under load that is more than milliseconds."""
    found = await guest_clock.set_right(context.clock, sandbox.guest(), at_once=True)
    if not found.exact:
        sandbox.clock_doubted.set()


async def _make_volumes(context: Context, sandbox: Sandbox, volumes: Sequence[pb.Volume]) -> None:
    keys = {ref: await mount_image(context, sandbox, ref) for ref in image_refs(list(volumes))}

    async def make(volume: pb.Volume) -> None:
        wanted = put_volume_request(volume, keys.get(volume.image.image_ref, ""))
        await ask(
            sandbox.guest().control.PutVolume(wanted, timeout=CALL_S),
            f"making volume {volume.name!r}",
        )

    async with together() as group:
        for volume in volumes:
            group.create_task(make(volume), name=f"volume {volume.name} of {sandbox.id}")
