"""QEMU's devices and back ends, one dataclass each, named as QEMU names them.

Each renders to the arguments that make it. Their order and their options are the device
contract (ARCHITECTURE.md): a change is a new CONTRACT_VERSION.
"""

from __future__ import annotations

from dataclasses import dataclass


def options(head: str, **values: str | int | bool | None) -> str:
    """Render QEMU's `head,key=value,...`; None is left out, a comma in a value is doubled.

    An underscore in a key stands for a hyphen.
    """
    parts = [head]
    for key, value in values.items():
        if value is None:
            continue
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        parts.append(f"{key.replace('_', '-')}={text.replace(',', ',,')}")
    return ",".join(parts)


@dataclass(frozen=True)
class MicrovmMachine:
    """`-machine microvm`. PVH boot, no PCI, no ACPI tables that the guest would need."""

    memory_backend: str = "mem"

    def render(self) -> list[str]:
        return [
            "-machine",
            options(
                "microvm",
                memory_backend=self.memory_backend,
                pit=False,
                pic=False,
                rtc=True,
                isa_serial=True,
            ),
        ]


@dataclass(frozen=True)
class MemoryBackendRam:
    """`memory-backend-ram`: private anonymous memory, for a cold boot."""

    size_mib: int

    def render(self) -> list[str]:
        # dump=off: no guest memory (secrets) in a core dump. merge=off: pages that are merged
        # between VMs tell one what is in the other.
        return [
            "-object",
            options(
                "memory-backend-ram",
                id="mem",
                size=f"{self.size_mib}M",
                dump=False,
                merge=False,
                reserve=False,
            ),
        ]


@dataclass(frozen=True)
class MemoryBackendFile:
    """`memory-backend-file` on a descriptor: shared to make a template, private to use it."""

    size_mib: int
    fd: int
    share: bool

    def render(self) -> list[str]:
        return [
            "-object",
            options(
                "memory-backend-file",
                id="mem",
                size=f"{self.size_mib}M",
                mem_path=f"/proc/self/fd/{self.fd}",
                share=self.share,
                dump=False,
                merge=False,
                reserve=None if self.share else False,
            ),
        ]


MemoryBackend = MemoryBackendRam | MemoryBackendFile


@dataclass(frozen=True)
class Console:
    """The ISA serial port on a bounded ring that QMP reads: a guest cannot fill a disk with it."""

    bytes: int = 65536

    def render(self) -> list[str]:
        return [
            "-chardev",
            options("ringbuf", id="console", size=self.bytes),
            "-serial",
            "chardev:console",
        ]


@dataclass(frozen=True)
class Monitor:
    """QMP on a listening socket that QEMU is given."""

    fd: int

    def render(self) -> list[str]:
        return [
            "-chardev",
            options("socket", id="qmp", fd=self.fd, server=True, wait=False),
            "-mon",
            options("chardev=qmp", mode="control"),
        ]


@dataclass(frozen=True)
class VirtioSerial:
    """The two ports to the guest agent, each on a listening socket that QEMU is given."""

    control_fd: int
    bulk_fd: int

    def render(self) -> list[str]:
        arguments = ["-device", options("virtio-serial-device,max_ports=3", id="serial0")]
        for number, name, fd in ((1, "control", self.control_fd), (2, "bulk", self.bulk_fd)):
            arguments += [
                "-chardev",
                options("socket", id=name, fd=fd, server=True, wait=False),
                "-device",
                options("virtserialport", nr=number, chardev=name, id=name, name=f"vk.{name}"),
            ]
        return arguments


@dataclass(frozen=True)
class VirtioScsi:
    """The controller on which disks appear at any time: `microvm` hot-plugs no virtio-mmio."""

    def render(self) -> list[str]:
        return ["-device", options("virtio-scsi-device", id="scsi0")]


@dataclass(frozen=True)
class VirtioNet:
    """The network device, on a tap by descriptor, or on a hub that leads nowhere."""

    tap_fd: int | None

    def render(self) -> list[str]:
        netdev = (
            options("hubport", id="net0", hubid=0)
            if self.tap_fd is None
            else options("tap", id="net0", fd=self.tap_fd)
        )
        # romfile is PCI's; the MAC is set by the guest when it is told who it is. A link with a
        # status has no carrier at first, and Linux then waits a second with what needs one.
        device = options("virtio-net-device", netdev="net0", status="off")
        return ["-netdev", netdev, "-device", device]


@dataclass(frozen=True)
class VirtioBalloon:
    """Gives the host the pages back that the guest has freed."""

    def render(self) -> list[str]:
        return [
            "-device",
            options("virtio-balloon-device", id="balloon0", free_page_reporting=True),
        ]


def scsi_disk(lun: int) -> dict[str, object]:
    """Return QMP `device_add`'s arguments for the disk with that LUN."""
    return {
        "driver": "scsi-hd",
        "id": disk_name(lun),
        "bus": "scsi0.0",
        "channel": 0,
        "scsi-id": 0,
        "lun": lun,
        "drive": disk_name(lun),
    }


def block_node(lun: int, fdset: int, *, read_only: bool) -> dict[str, object]:
    """Return QMP `blockdev-add`'s arguments for a raw file that was handed over by `add-fd`.

    Flushes go no further than the host's page cache: a scratch disk dies with its VM.
    """
    return {
        "driver": "raw",
        "node-name": disk_name(lun),
        "read-only": read_only,
        "discard": "ignore" if read_only else "unmap",
        "cache": {"direct": False, "no-flush": True},
        "file": {
            "driver": "file",
            "filename": f"/dev/fdset/{fdset}",
            "locking": "off",  # the agent alone gives disks out
            "discard": "ignore" if read_only else "unmap",
            "cache": {"direct": False, "no-flush": True},
        },
    }


def disk_name(lun: int) -> str:
    """Return the name of a disk's device and block node."""
    return f"lun{lun}"
