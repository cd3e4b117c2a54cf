"""What this host is and offers."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

import psutil

from vk_provider import __version__
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.context import Context
from vk_provider.agent.images import FsUsage
from vk_provider.agent.ports import MachinesInfo

MIB = 1024 * 1024
# The kubelet's hard eviction defaults (pkg/kubelet/apis/config/v1beta1): below them, pressure.
_MIN_MEMORY_BYTES = 100 * MIB
_MIN_NODE_FS = 0.10
_MIN_IMAGE_FS = 0.15
_MIN_PIDS = 1000
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def host_info(context: Context, machines: MachinesInfo) -> pb.HostInfo:
    """Return the host as of now; reads /proc and statvfs, and nothing slow."""
    settings = context.settings
    ready, network_message = context.network.ready()
    images = context.images.usage()
    node_fs = os.statvfs(settings.state_dir)
    memory = psutil.virtual_memory()
    return pb.HostInfo(
        agent_version=__version__,
        hostname=socket.gethostname(),
        machine_id=_read("/etc/machine-id"),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        system_uuid=_read("/sys/class/dmi/id/product_uuid"),
        kernel_version=machines.guest_kernel,
        host_kernel_version=platform.release(),
        os_image=_os_image(),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        hypervisor=machines.hypervisor,
        accelerator=machines.accelerator,
        accelerator_reason=machines.accelerator_reason,
        cpu_milli=int(host_cpus() * 1000 * settings.cpu_overcommit),
        memory_bytes=int(memory.total * settings.memory_overcommit),
        ephemeral_storage_bytes=node_fs.f_blocks * node_fs.f_frsize,
        max_pods=settings.max_pods,
        addresses=host_addresses(),
        resolv_conf=_read("/etc/resolv.conf", keep_lines=True),
        network_ready=ready,
        network_message=network_message,
        conditions=_conditions(memory.available, [node_fs, _log_fs(settings.log_dir)], images),
        image_fs_capacity_bytes=images.capacity_bytes,
        image_fs_used_bytes=images.used_bytes,
        image_fs_available_bytes=images.available_bytes,
        image_fs_inodes=images.inodes,
        image_fs_inodes_free=images.inodes_free,
    )


def host_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def host_addresses() -> list[str]:
    """Return the host's addresses, the one that leads to the default route first."""
    found: list[str] = []
    for family, anywhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((anywhere, 9))  # sends nothing
            except OSError:
                continue
            found.append(probe.getsockname()[0])
    for name, addresses in psutil.net_if_addrs().items():
        if name == "lo" or name.startswith(("veth", "vk", "cni", "tap")):
            continue
        for address in addresses:
            if address.family == socket.AF_INET and address.address not in found:
                found.append(address.address)
    return found


def _log_fs(log_dir: Path) -> os.statvfs_result:
    """Return the figures of the file system that takes the logs; their folder may come later."""
    while not log_dir.exists():
        log_dir = log_dir.parent
    return os.statvfs(log_dir)


def _conditions(
    memory_available: int, file_systems: list[os.statvfs_result], images: FsUsage
) -> list[pb.HostCondition]:
    node_share = min(fs.f_bavail / max(1, fs.f_blocks) for fs in file_systems)
    image_share = images.available_bytes / max(1, images.capacity_bytes)
    pids_left = int(_read("/proc/sys/kernel/pid_max") or 0) - len(psutil.pids())
    # The sentences hold no figures: each change of one is a patch of the Node.
    full = node_share < _MIN_NODE_FS or image_share < _MIN_IMAGE_FS
    return [
        _condition("MemoryPressure", "memory", memory_available < _MIN_MEMORY_BYTES),
        _condition("DiskPressure", "disk space", full),
        _condition("PIDPressure", "process ids", pids_left < _MIN_PIDS),
    ]


_REASONS = {
    "MemoryPressure": ("HasSufficientMemory", "HasInsufficientMemory"),
    "DiskPressure": ("HasNoDiskPressure", "HasDiskPressure"),
    "PIDPressure": ("HasSufficientPID", "HasInsufficientPID"),
}


def _condition(kind: str, what: str, pressed: bool) -> pb.HostCondition:
    return pb.HostCondition(
        type=kind,
        status=pressed,
        reason=f"Agent{_REASONS[kind][pressed]}",
        message=f"the agent's host has {'too little' if pressed else 'sufficient'} {what}",
    )


def _os_image() -> str:
    for line in _read("/etc/os-release", keep_lines=True).splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()


def _read(path: str, *, keep_lines: bool = False) -> str:
    """Return a small file's text, "" where there is none."""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return ""
    return text if keep_lines else text.strip()
