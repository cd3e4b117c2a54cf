"""How a sandbox starts: a VM, its place in the network, its identity, its volumes and images."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent import guest_clock
from vk_provider.agent.booting import Seed, boot
from vk_provider.agent.context import Context
from vk_provider.agent.disks import mount_image
from vk_provider.agent.guest_calls import CALL_S, GuestMisbehaved, ask, fresh_entropy
from vk_provider.agent.network import Attachment, Tap
from vk_provider.agent.phases import Phases
from vk_provider.agent.ports import Machine
from vk_provider.agent.sandbox import Sandbox
from vk_provider.agent.spares import Spare
from vk_provider.agent.together import together
from vk_provider.agent.usage_records import usage_record
from vk_provider.agent.volumes import image_refs, put_volume_request


async def start_machine(
    context: Context, sandbox: Sandbox, request: pb.RunSandboxRequest, phases: Phases
) -> None:
    """Take a recorded sandbox to a configured VM with its volumes. Raises kinds of error.

    Leaves what it made to the caller, who takes the sandbox down when this fails.
    """
    size = request.ephemeral_storage_limit_bytes or context.settings.scratch_bytes
    record = sandbox.record
    seed = Seed(record.machine_id, record.uid, record.status.shape, size)
    spare = await context.spares.take(seed.shape, size) if context.spares else None
    async with together() as group:
        if spare is not None:
            _adopt(context, sandbox, spare)
            phases.take_earlier(spare.phases.done)
            attaching = _attach_beside(group, context, sandbox, request, phases)
        else:
            with phases.step("tap"):
                tap = await context.network.open_tap(seed.machine_id)
            # The plugins take their time while the VM starts.
            attaching = _attach_beside(group, context, sandbox, request, phases)
            await _boot(context, sandbox, seed, tap, phases)
        _note_machine(sandbox, "one of the VMs kept ready; " if spare is not None else "")
        for image in request.images:
            group.create_task(
                _mount_early(context, sandbox, image), name=f"image {image} into {sandbox.id}"
            )
        attachment = await attaching
        record.status.ips[:] = attachment.ips
        with phases.step("configure"):
            await _configure(context, sandbox, request, attachment.interface)
        group.create_task(_set_clock(context, sandbox), name=f"clock of {sandbox.id}")
        with phases.step("volumes"):
            await _make_volumes(context, sandbox, list(request.volumes))


def _adopt(context: Context, sandbox: Sandbox, spare: Spare) -> None:
    """Make a VM that was kept ready the sandbox's; from here on it ends with the sandbox."""
    sandbox.machine = spare.machine
    sandbox.record.machine_id, sandbox.record.uid = spare.seed.machine_id, spare.seed.uid
    sandbox.record.vm_cpu_before_ns = spare.machine.vm.usage().cpu_ns
    _started(context, sandbox, spare.found)


async def _boot(context: Context, sandbox: Sandbox, seed: Seed, tap: Tap, phases: Phases) -> None:
    def on_machine(machine: Machine) -> None:
        sandbox.machine = machine

    await boot(
        context, seed, tap, phases, lambda found: _started(context, sandbox, found), on_machine
    )


def _note_machine(sandbox: Sandbox, whence: str) -> None:
    """Note how the VM started, and whence it comes: a restore is told from a VM that was ready."""
    started, status = sandbox.running_machine(), sandbox.record.status
    status.start_mode, status.start_reason = started.start_mode, whence + started.start_reason
    status.guest_kernel, status.guest_version = started.guest_kernel, started.guest_version


def _attach_beside(
    group: asyncio.TaskGroup,
    context: Context,
    sandbox: Sandbox,
    request: pb.RunSandboxRequest,
    phases: Phases,
) -> asyncio.Task[Attachment]:
    return group.create_task(
        _attach(context, sandbox, request, phases), name=f"network of {sandbox.id}"
    )


async def _attach(
    context: Context, sandbox: Sandbox, request: pb.RunSandboxRequest, phases: Phases
) -> Attachment:
    with phases.step("network"):
        return await context.network.attach(
            sandbox.record.machine_id, request.pod, list(request.port_mappings)
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
) -> None:
    configure = guest_pb2.ConfigureRequest(
        sandbox_id=sandbox.id,
        hostname=request.hostname,
        resolv_conf=request.resolv_conf,
        clock_ns=context.clock.now_ns(),
        entropy=fresh_entropy(),
        machine_id=sandbox.id,  # 32 hex digits, and one of its kind
        interface=interface,
        sysctls=dict(request.sysctls),
        share_process_namespace=request.share_process_namespace,
    )
    control = sandbox.guest().control
    answer = await ask(
        control.Configure(configure, timeout=CALL_S), f"configuring sandbox {sandbox.id}"
    )
    if answer.machine_id != sandbox.id:
        raise GuestMisbehaved(f"the guest of sandbox {sandbox.id} has kept another machine id")


async def _mount_early(context: Context, sandbox: Sandbox, image: str) -> None:
    """Mount an image that a container will soon want; one that is not here yet is no error."""
    if context.images.resolve(image) is not None:
        await mount_image(context, sandbox, image)


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
