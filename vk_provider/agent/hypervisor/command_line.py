"""QEMU's command line and the guest kernel's, as pure renderings of the device contract."""

from __future__ import annotations

from dataclasses import dataclass

from vk_provider.agent.hypervisor.devices import (
    Console,
    MemoryBackend,
    MicrovmMachine,
    Monitor,
    VirtioBalloon,
    VirtioNet,
    VirtioScsi,
    VirtioSerial,
    options,
)

CPU_MODEL = "max"


@dataclass(frozen=True)
class Accelerator:
    """`-accel`: KVM, or TCG with a bounded translation cache."""

    name: str
    tb_size_mib: int
    tsc_khz: int
    """Of the host. Under TCG the guest reads the host's counter, and cannot measure it here."""

    def render(self) -> list[str]:
        if self.name == "kvm":
            return ["-accel", "kvm"]
        return ["-accel", options("tcg", tb_size=self.tb_size_mib)]


@dataclass(frozen=True)
class QemuInvocation:
    """All that a VM's command line depends on. Descriptors are numbers in QEMU's process."""

    qemu: str
    name: str
    """The VM's run directory: who looks at the processes sees whose they are."""
    accelerator: Accelerator
    vcpus: int
    ram_mib: int
    memory: MemoryBackend
    kernel_fd: int
    initramfs_fd: int
    monitor: Monitor
    serial: VirtioSerial
    network: VirtioNet
    incoming: bool = False
    """Wait for a template's device state."""

    def render(self) -> list[str]:
        """Return the arguments, the program first."""
        arguments = [
            self.qemu,
            "-name",
            "guest=" + self.name.replace(",", ",,"),
            "-nodefaults",
            "-no-user-config",
            "-nographic",
            # The vCPUs start by QMP `cont`, when the VM is on record. A guest that powers off,
            # panics or resets leaves QEMU paused, so that its console can still be read.
            "-S",
            "-no-reboot",
            "-action",
            "shutdown=pause,panic=pause",
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            *MicrovmMachine().render(),
            *self.accelerator.render(),
            "-cpu",
            CPU_MODEL,
            "-smp",
            str(self.vcpus),
            "-m",
            f"{self.ram_mib}M",
            *self.memory.render(),
            "-kernel",
            f"/proc/self/fd/{self.kernel_fd}",
            "-initrd",
            f"/proc/self/fd/{self.initramfs_fd}",
            "-append",
            kernel_command_line(self.accelerator),
            # virtio-mmio is legacy unless told; vhost-user and new features need modern.
            "-global",
            "virtio-mmio.force-legacy=false",
            *Console().render(),
            *self.monitor.render(),
            *self.serial.render(),
            *VirtioScsi().render(),
            *self.network.render(),
            *VirtioBalloon().render(),
        ]
        if self.incoming:
            arguments += ["-incoming", "defer"]
        return arguments


def kernel_command_line(accelerator: Accelerator) -> str:
    """Return the guest kernel's command line.

    panic=-1 reboot=t: a panic ends the VM at once. Under TCG the kernel's own calibration of the
    TSC hangs in about one boot of six, hence tsc_early_khz; tsc=reliable lets it use tickless
    timers. KVM has its own clock. cryptomgr.notests: the self-tests of ciphers that few use take a
    tenth of a boot under TCG. psi=0, nowatchdog: an idle VM is not to wake up for either.
    init_on_free=0: a page that was given back need not be of zeros (`discards`).
    """
    words = ["console=ttyS0", "quiet", "panic=-1", "reboot=t", "random.trust_cpu=on"]
    words += ["cryptomgr.notests", "psi=0", "nowatchdog", "init_on_free=0"]
    if accelerator.name == "tcg":
        words += [f"tsc_early_khz={accelerator.tsc_khz}", "tsc=reliable"]
    return " ".join(words)
