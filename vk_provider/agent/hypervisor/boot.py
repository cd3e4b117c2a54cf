"""From a request to a QEMU that waits for `cont`: descriptors, group, process, monitor."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vk_provider.agent.hypervisor.cgroups import CgroupManager
from vk_provider.agent.hypervisor.command_line import Accelerator, QemuInvocation
from vk_provider.agent.hypervisor.devices import (
    MemoryBackend,
    MemoryBackendFile,
    MemoryBackendRam,
    Monitor,
    VirtioNet,
    VirtioSerial,
)
from vk_provider.agent.hypervisor.discards import GIVEN_FROM
from vk_provider.agent.hypervisor.guest_image import GuestImage
from vk_provider.agent.hypervisor.launch import listen, spawn
from vk_provider.agent.hypervisor.machine import MONITOR_SOCKET, Machine
from vk_provider.agent.hypervisor.process import BoundedOutput, Process
from vk_provider.common.errors import Unavailable

CONTROL_SOCKET = "control.sock"
BULK_SOCKET = "bulk.sock"

_QEMU_MIB = 192
"""QEMU's own memory beside the guest's and the translation cache: heap, stacks, device buffers,
page tables."""


@dataclass(frozen=True)
class Host:
    """What all VMs of one agent share."""

    qemu: str
    guest: GuestImage
    cgroups: CgroupManager
    kvm_groups: tuple[int, ...] = ()
    """Supplementary groups that open /dev/kvm."""


@dataclass(frozen=True)
class Request:
    """One process to start. name: of the control group.

    memory_fd: None for private memory (a cold boot), else a file for the guest's memory, shared
    (a template in the making) or private (its use). memory_number: the descriptor by which QEMU
    will hold that file itself, where it is known; see `discards`.
    """

    name: str
    accelerator: Accelerator
    vcpus: int
    ram_mib: int
    uid: int
    netns: str | None
    tap_fd: int | None
    run_dir: Path
    memory_fd: int | None = None
    memory_shared: bool = False
    memory_number: int | None = None
    incoming: bool = False

    def memory(self, fd: int | None) -> MemoryBackend:
        """Return the back end; `fd` is the number of `memory_fd` in QEMU's process."""
        if fd is None:
            return MemoryBackendRam(self.ram_mib)
        return MemoryBackendFile(self.ram_mib, fd, self.memory_shared)

    @property
    def memory_bound_bytes(self) -> int:
        return (self.ram_mib + self.accelerator.tb_size_mib + _QEMU_MIB) * 1024 * 1024


def launch(host: Host, request: Request, on_process: Callable[[Process], None]) -> Machine:
    """Start QEMU with its vCPUs stopped; `on_process` is called as soon as its pid is known.

    Takes a few milliseconds. Raises Unavailable or Invalid, and leaves nothing then.
    """
    with ExitStack() as stack:

        def given(fd: int) -> int:
            """Return a number for QEMU that is none of those it gives to what it opens itself."""
            high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, GIVEN_FROM)
            stack.callback(os.close, high)
            return high

        def opened(path: Path) -> int:
            with path.open("rb") as file:
                return given(file.fileno())

        def listening(name: str) -> int:
            with listen(request.run_dir / name) as sock:
                return given(sock.fileno())

        try:
            kernel, initramfs = opened(host.guest.kernel), opened(host.guest.initramfs)
        except OSError as exc:
            raise Unavailable(f"the guest image cannot be read: {exc}") from exc
        try:
            ports = VirtioSerial(listening(CONTROL_SOCKET), listening(BULK_SOCKET))
            monitor = Monitor(listening(MONITOR_SOCKET))
        except OSError as exc:
            raise Unavailable(f"no socket can be made in {request.run_dir}: {exc}") from exc
        tap = given(request.tap_fd) if request.tap_fd is not None else None
        memory = given(request.memory_fd) if request.memory_fd is not None else None
        invocation = QemuInvocation(
            qemu=host.qemu,
            name=str(request.run_dir),
            accelerator=request.accelerator,
            vcpus=request.vcpus,
            ram_mib=request.ram_mib,
            memory=request.memory(memory),
            kernel_fd=kernel,
            initramfs_fd=initramfs,
            monitor=monitor,
            serial=ports,
            network=VirtioNet(tap),
            incoming=request.incoming,
        )
        fds = [kernel, initramfs, ports.control_fd, ports.bulk_fd, monitor.fd]
        fds += [fd for fd in (tap, memory) if fd is not None]
        return _start(host, request, invocation, fds, on_process)


def _start(
    host: Host,
    request: Request,
    invocation: QemuInvocation,
    fds: list[int],
    on_process: Callable[[Process], None],
) -> Machine:
    try:
        cgroup = host.cgroups.create(request.name, request.memory_bound_bytes)
    except OSError as exc:
        raise Unavailable(f"no control group can be made for VM {request.name}: {exc}") from exc
    output = BoundedOutput.make()
    try:
        child = spawn(
            invocation.render(),
            cgroup=cgroup,
            netns=request.netns,
            uid=request.uid,
            groups=host.kvm_groups if request.accelerator.name == "kvm" else (),
            fds=fds,
            stderr_fd=output.fd,
            memory_number=request.memory_number,
        )
    except BaseException:
        output.close()
        cgroup.remove()
        raise
    try:
        process = Process.of_child(child)
    except OSError as exc:
        child.kill()
        child.wait()
        output.close()
        cgroup.remove()
        raise Unavailable(f"QEMU of VM {request.name} cannot be watched: {exc}") from exc
    try:
        on_process(process)
    except BaseException:
        process.undo_start()
        output.close()
        cgroup.remove()
        raise
    return Machine(process, cgroup, output, request.run_dir)
