"""What the agent's core asks of the machines that it runs sandboxes in.

Protocols, so that the core can be tested without QEMU. `machines.py` has the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vk_provider._pb.guest_pb2_grpc import GuestServiceAsyncStub


class VmExit(Protocol):
    """How a VM ended; `message` is a sentence, with the console's end where it died badly."""

    @property
    def code(self) -> int | None: ...
    @property
    def message(self) -> str: ...


class VmUsage(Protocol):
    """What a VM costs the host: QEMU's own figures."""

    @property
    def cpu_ns(self) -> int: ...
    @property
    def private_memory_bytes(self) -> int: ...


class Vm(Protocol):
    """A running VM."""

    @property
    def phases(self) -> Sequence[tuple[str, int, int]]:
        """Name, start and end of each step of the start, in ns of the wall clock."""
        ...

    @property
    def held(self) -> bool:
        """Whether it stands still, because the host's disk has no room for what it writes."""
        ...

    async def until_held(self, held: bool) -> None:
        """Wait until it stands still so, or (False) until it goes on."""
        ...

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        ...

    def yield_cpu(self) -> None:
        """Have other VMs go first where the CPU is short."""
        ...

    def claim_cpu(self) -> None:
        """Take back `yield_cpu`."""
        ...

    async def attach_disk(self, lun: int, file: Path, *, read_only: bool) -> None: ...
    async def wait(self) -> VmExit: ...
    async def kill(self) -> None: ...
    def usage(self) -> VmUsage: ...
    async def close(self) -> None: ...


class Guest(Protocol):
    """The two connections to a guest agent; they come back by themselves."""

    @property
    def control(self) -> GuestServiceAsyncStub: ...
    @property
    def bulk(self) -> GuestServiceAsyncStub: ...
    async def close(self) -> None: ...


@dataclass(frozen=True)
class Machine:
    """A VM and the way to its guest agent."""

    vm: Vm
    guest: Guest
    start_mode: str
    """"template" or "cold"."""
    start_reason: str
    guest_kernel: str
    guest_version: str

    async def end(self) -> None:
        """Kill the VM, and let go of all that leads to it."""
        await self.vm.kill()
        await self.guest.close()
        await self.vm.close()


@dataclass(frozen=True)
class MachineOrder:
    """What VM is wanted. The receiver duplicates `tap_fd`; the caller closes its own."""

    sandbox_id: str
    vcpus: int
    memory_mib: int
    cpu_milli: int
    """Bound of QEMU's cgroup."""
    uid: int
    netns: str
    tap_fd: int
    run_dir: Path
    allow_template: bool


class Machines(Protocol):
    """Starts VMs and finds them again."""

    async def start(self, order: MachineOrder, on_record: Callable[[str], None]) -> Machine:
        """Return a VM whose guest agent answers.

        `on_record` is called with what `adopt` needs before the guest runs. When it fails or is
        cancelled nothing of the VM is left.
        """
        ...

    async def prepare(self, vcpus: int, memory_mib: int) -> bool:
        """See that VMs of that shape start quickly; False where that is not to be had."""
        ...

    async def prune_templates(self) -> None:
        """Remove from the disk what VMs start from and nobody uses; never raises kinds of error."""
        ...

    async def adopt(self, record: str) -> Machine | None:
        """Return the VM of that record, None where it has ended."""
        ...

    async def destroy(self, record: str) -> None:
        """Kill the VM of that record, if it runs, and remove what it leaves on the host."""
        ...

    def list_leftovers(self) -> set[str]:
        """Return the ids of sandboxes that something on this host still names."""
        ...

    async def remove_leftover(self, sandbox_id: str) -> None: ...


@dataclass(frozen=True)
class MachinesInfo:
    """What runs the VMs, for people and for the node's nodeInfo."""

    hypervisor: str
    """"QEMU 7.2.22"."""
    accelerator: str
    accelerator_reason: str
    guest_kernel: str
