"""A running microVM: its disks, its guest agent, its end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from vk_provider._pb import guest_pb2 as pb
from vk_provider.agent.guest import GuestConnection
from vk_provider.agent.hypervisor.boot import BULK_SOCKET, CONTROL_SOCKET
from vk_provider.agent.hypervisor.devices import block_node, disk_name, scsi_disk
from vk_provider.agent.hypervisor.machine import Machine
from vk_provider.agent.hypervisor.qmp import QmpError
from vk_provider.agent.hypervisor.spec import VmExit, VmRecord, VmUsage
from vk_provider.common.errors import DeadlineExceeded, FailedPrecondition, NotFound

_FDSET_BASE = 100
_DETACH_S = 5.0
_MAX_LUN = 255


class Vm:
    """One VM, held until `kill` or `close`.

    control, bulk: the addresses of the guest agent's ports. guest: the one connection to them,
    which belongs to the Vm and is closed with it. phases: (name, start_ns, end_ns) of its start.
    hello: what the guest agent answered then; None where the VM was adopted.
    """

    def __init__(
        self,
        record: VmRecord,
        machine: Machine,
        phases: list[tuple[str, int, int]],
        guest: GuestConnection | None = None,
        hello: pb.HelloResponse | None = None,
    ) -> None:
        self.record = record
        self.phases = phases
        self.control, self.bulk = guest_addresses(machine.run_dir)
        self.guest = guest or GuestConnection(self.control, self.bulk)
        self.hello = hello
        self._machine = machine
        # What a VM that was adopted has, QEMU must be asked.
        self._luns: set[int] | None = None if hello is None else set()

    @property
    def held(self) -> bool:
        """Whether it stands still until the host's disk has room for what it writes."""
        return self._machine.held

    async def until_held(self, held: bool) -> None:
        """Wait until it stands still so, or (False) until it goes on."""
        await self._machine.until_held(held)

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._machine.gone

    def yield_cpu(self) -> None:
        """Have other VMs go first where the CPU is short."""
        self._machine.cgroup.yield_cpu()

    def claim_cpu(self) -> None:
        """Take back `yield_cpu`."""
        self._machine.cgroup.claim_cpu()

    async def attach_disk(self, lun: int, file: Path, *, read_only: bool) -> None:
        """Give the VM that file as the disk with that LUN; the guest sees it at once.

        The file is opened here, so it may be root's alone. A LUN that is there stays as it is.
        Raises NotFound without the file, Unavailable without the VM, QmpError when QEMU refuses.
        """
        if not 0 <= lun <= _MAX_LUN:
            raise FailedPrecondition(
                f"LUN {lun} is out of range: a VM takes disks 0 to {_MAX_LUN}; remove containers "
                "whose images are not needed any more"
            )
        known, self._luns = self._luns, None  # not known any more, where this fails half-way
        if known is None:
            await self._attach_unless_there(lun, file, read_only=read_only)
            return
        if lun not in known:
            await self._open(lun, file, read_only=read_only)
            await self._machine.qmp.execute_with("device_add", scsi_disk(lun))
        self._luns = known | {lun}

    async def _attach_unless_there(self, lun: int, file: Path, *, read_only: bool) -> None:
        name = disk_name(lun)
        if name in await self._devices():
            return
        if name not in await self._nodes():
            await self._open(lun, file, read_only=read_only)
        await self._machine.qmp.execute_with("device_add", scsi_disk(lun))

    async def _open(self, lun: int, file: Path, *, read_only: bool) -> None:
        """Hand a disk's file to QEMU as a block node."""
        flags = os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR)
        try:
            fd = os.open(file, flags)
        except OSError as exc:
            raise NotFound(f"disk {lun} of VM {self.record.sandbox_id}: {exc}") from exc
        qmp = self._machine.qmp
        try:
            await qmp.execute_with("add-fd", {"fdset-id": _FDSET_BASE + lun}, [fd])
        finally:
            os.close(fd)
        node = block_node(lun, _FDSET_BASE + lun, read_only=read_only)
        await qmp.execute_with("blockdev-add", node)

    async def detach_disk(self, lun: int) -> None:
        """Take the disk with that LUN away; nothing happens where there is none.

        The guest must have unmounted it. Raises DeadlineExceeded when QEMU does not let go.
        """
        name, qmp = disk_name(lun), self._machine.qmp
        self._luns = None
        if name in await self._devices():
            deleted = self._machine.expect("DEVICE_DELETED", device=name)
            try:
                await qmp.execute("device_del", id=name)
                async with asyncio.timeout(_DETACH_S):
                    await deleted
            except TimeoutError as exc:
                raise DeadlineExceeded(
                    f"QEMU did not let go of disk {lun} of VM {self.record.sandbox_id} within "
                    f"{_DETACH_S:g} s; unmount it in the guest first"
                ) from exc
            finally:
                deleted.cancel()
        if name in await self._nodes():
            await qmp.execute_with("blockdev-del", {"node-name": name})
        try:
            await qmp.execute_with("remove-fd", {"fdset-id": _FDSET_BASE + lun})
        except QmpError:
            return  # the set went with its last user

    async def wait(self) -> VmExit:
        """Wait for the VM's end and tell how it came. May be repeated; cancellation is harmless."""
        return await self._machine.wait()

    async def kill(self) -> None:
        """End the VM now and leave no process and no group of it. May be repeated."""
        await self.guest.close()
        await self._machine.kill()

    def usage(self) -> VmUsage:
        """Return what QEMU uses; after its end what it used last."""
        return self._machine.sample()

    async def close(self) -> None:
        """Drop the connections; the VM lives on, to be adopted. May be repeated."""
        await self.guest.close()
        await self._machine.close()

    async def console(self) -> str:
        """Take what the guest's kernel has said since the last time (64 KiB at most are kept)."""
        return await self._machine.console()

    async def _devices(self) -> set[str]:
        found = await self._machine.qmp.execute("qom-list", path="/machine/peripheral")
        return {str(entry["name"]) for entry in found}

    async def _nodes(self) -> set[str]:
        found = await self._machine.qmp.execute("query-named-block-nodes", flat=True)
        return {str(entry["node-name"]) for entry in found}


def guest_addresses(run_dir: Path) -> tuple[str, str]:
    """Return the gRPC addresses of a VM's control and bulk ports."""
    return f"unix:{run_dir / CONTROL_SOCKET}", f"unix:{run_dir / BULK_SOCKET}"
