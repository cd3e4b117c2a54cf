"""Disks in a sandbox's VM: which image has which LUN, each attached and mounted once."""

from __future__ import annotations

from vk_provider._pb import guest_pb2
from vk_provider.agent.context import Context
from vk_provider.agent.guest_calls import CALL_S, ask
from vk_provider.agent.records import Disk
from vk_provider.agent.sandbox import Sandbox
from vk_provider.common.errors import Exhausted, NotFound

SCRATCH_LUN = 0
_LAST_LUN = 255  # virtio-scsi's addressing in QEMU with one target


async def mount_image(context: Context, sandbox: Sandbox, image_ref: str) -> str:
    """See that the guest has the image mounted; return the image's key there.

    Raises NotFound for an image that was not pulled.
    """
    image = context.images.resolve(image_ref)
    if image is None:
        raise NotFound(f"image {image_ref} is not on this host; pull it first")
    async with sandbox.disk_lock:
        if image.key in sandbox.mounted:
            return image.key
        disk = next((d for d in sandbox.record.disks if d.key == image.key), None)
        if disk is None:
            disk = Disk(_free_lun(sandbox), image_ref, image.key)
            sandbox.record.disks.append(disk)
            context.save(sandbox)
        context.images.mark_used(image.image_ref)
        machine = sandbox.running_machine()
        await machine.vm.attach_disk(disk.lun, image.disk, read_only=True)
        await ask(
            machine.guest.control.MountDisk(
                guest_pb2.MountDiskRequest(lun=disk.lun, image_key=image.key), timeout=CALL_S
            ),
            f"mounting image {image_ref} in sandbox {sandbox.id}",
        )
        sandbox.mounted.add(image.key)
        return image.key


def _free_lun(sandbox: Sandbox) -> int:
    lun = max((d.lun for d in sandbox.record.disks), default=SCRATCH_LUN) + 1
    if lun > _LAST_LUN:
        raise Exhausted(f"sandbox {sandbox.id} has {_LAST_LUN} image disks and takes no more")
    return lun
