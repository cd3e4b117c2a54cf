"""From a request to a QEMU that waits for `cont`: descriptors, group, process, monitor."""

from __future__ import annotations

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
    (a template in the making) or private (its use).
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
    incoming: bool = False

    def memory(self) -> MemoryBackend:
        if self.memory_fd is None:
            return MemoryBackendRam(self.ram_mib)
        return MemoryBackendFile(self.ram_mib, self.memory_fd, self.memory_shared)

    @property
    def memory_bound_bytes(self) -> int:
        return (self.ram_mib + self.accelerator.tb_size_mib + _QEMU_MIB) * 1024 * 1024


def launch(host: Host, request: Request, on_process: Callable[[Process], None]) -> Machine:
    """Start QEMU with its vCPUs stopped; `on_process` is called as soon as its pid is known.

    Takes a few milliseconds. Raises Unavailable or Invalid, and leaves nothing then.
    """
    with ExitStack() as stack:

        def opened(path: Path) -> int:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return fd

        def listening(name: str) -> int:
            return stack.enter_context(listen(request.run_dir / name)).fileno()

        try:
            kernel, initramfs = opened(host.guest.kernel), opened(host.guest.initramfs)
        except OSError as exc:
            raise Unavailable(f"the guest image cannot be read: {exc}") from exc
        try:
            ports = VirtioSerial(listening(CONTROL_SOCKET), listening(BULK_SOCKET))
            monitor = Monitor(listening(MONITOR_SOCKET))
        except OSError as exc:
            raise Unavailable(f"no socket can be made in {request.run_dir}: {exc}") from exc
        invocation = QemuInvocation(
            qemu=host.qemu,
            name=str(request.run_dir),
            accelerator=request.accelerator,
            vcpus=request.vcpus,
            ram_mib=request.ram_mib,
            memory=request.memory(),
            kernel_fd=kernel,
            initramfs_fd=initramfs,
            monitor=monitor,
            serial=ports,
            network=VirtioNet(request.tap_fd),
            incoming=request.incoming,
        )
        fds = [kernel, initramfs, ports.control_fd, ports.bulk_fd, monitor.fd]
        fds += [fd for fd in (request.tap_fd, request.memory_fd) if fd is not None]
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
        )
    except BaseException:
        output.close()
        cgroup.remove()
        raise
    process = Process.of_child(child)
    try:
        on_process(process)
    except BaseException:
        process.kill()
        child.wait()
        process.release()
        output.close()
        cgroup.remove()
        raise
    return Machine(process, cgroup, output, request.run_dir)
