"""What a template depends on, as one hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from vk_provider.agent.hypervisor.command_line import Accelerator, QemuInvocation
from vk_provider.agent.hypervisor.devices import (
    MemoryBackendFile,
    Monitor,
    VirtioNet,
    VirtioSerial,
)
from vk_provider.agent.hypervisor.spec import CONTRACT_VERSION


@dataclass(frozen=True)
class TemplateKey:
    """All inputs of a template. ram_mib: of the VM, overhead included.

    cpu: under KVM the host's CPU, whose features the guest has seen; "" under TCG.
    """

    vcpus: int
    ram_mib: int
    guest_key: str
    qemu_version: str
    accelerator: str
    cpu: str

    @property
    def digest(self) -> str:
        """32 hex digits. Covers the whole command line, so no changed device can be forgotten."""
        invocation = QemuInvocation(
            qemu="qemu",
            name="template",
            accelerator=Accelerator(self.accelerator, 0, 0),
            vcpus=self.vcpus,
            ram_mib=self.ram_mib,
            memory=MemoryBackendFile(self.ram_mib, fd=0, share=False),
            kernel_fd=0,
            initramfs_fd=0,
            monitor=Monitor(0),
            serial=VirtioSerial(0, 0),
            network=VirtioNet(None),
        )
        inputs = [
            CONTRACT_VERSION,
            self.guest_key,
            self.qemu_version,
            self.cpu,
            invocation.render(),
        ]
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]

    def __str__(self) -> str:
        return f"{self.vcpus} vCPU, {self.ram_mib} MiB of RAM"
