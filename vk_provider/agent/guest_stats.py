"""A guest's figures, held to what can be true before anything adds them up.

A guest says what it used; what it could have used at most is known here. No figure may be larger
than that, nor too large for those who add it up.
"""

from __future__ import annotations

import re

from vk_provider._pb import guest_pb2
from vk_provider.agent.guest_calls import GuestMisbehaved
from vk_provider.agent.sandbox import Sandbox

MAX_TOLD = 1000
"""Containers, or file systems, that one guest may tell of."""
_MOST = 2**63 - 1
# A guest's clock and the host's are not one, and the host's may be set back.
_SLACK_US = 3600 * 1_000_000
_IDLE_NS = 40_000_000
_HOLDS_NS = 19_500_000_000  # with the tick after it: twenty seconds
_VOLUME = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?")
_CPU = ("cpu_usec", "cpu_user_usec", "cpu_system_usec", "throttled_usec")
_MEMORY = ("memory_current", "memory_inactive_file", "memory_anon")
_COUNTS = (
    "memory_max", "pgfault", "pgmajfault", "io_read_bytes", "io_write_bytes", "pids_current",
    "oom_kills",
)  # fmt: skip


def ask_or_hold(sandbox: Sandbox, vm_cpu_ns: int, now_ns: int) -> None:
    """Want a new sample of a VM that has done something since the last; else that one holds.

    Under emulation a sample costs some 20 ms of the host's processor. So one is taken each second
    of a VM that has used twice as much since the last, and each twenty seconds of every other.
    """
    if sandbox.stats_wanted.is_set():
        return
    used_ns = vm_cpu_ns - sandbox.vm_cpu_at_stats_ns
    # A sample from the future was taken before the host's clock was set back.
    fresh = 0 <= now_ns - sandbox.stats_taken_ns < _HOLDS_NS
    if used_ns >= _IDLE_NS or not fresh:
        sandbox.stats_wanted.set()
    else:
        sandbox.stats_at_ns = max(sandbox.stats_at_ns, now_ns)


def take_stats(sandbox: Sandbox, stats: guest_pb2.Stats, now_ns: int, vm_cpu_ns: int) -> None:
    """Make a sample the sandbox's newest, its figures held to what can be.

    Raises GuestMisbehaved for one that tells of more than a pod can have.
    """
    if len(stats.containers) > MAX_TOLD or len(stats.filesystems) > MAX_TOLD:
        raise GuestMisbehaved(
            f"the guest of {sandbox.id} told of {len(stats.containers)} containers and "
            f"{len(stats.filesystems)} file systems"
        )
    shape = sandbox.record.status.shape
    lived_us = max(0, now_ns - sandbox.record.started_at_ns) // 1000 + _SLACK_US
    most_cpu = max(1, shape.vcpus) * lived_us
    most_memory = 2 * shape.memory_bytes or _MOST
    _hold(stats.pod, most_cpu, most_memory)
    for container in stats.containers:
        _hold(container.cgroup, most_cpu, most_memory)
        _lower(container, _MOST, ("rootfs_used_bytes", "rootfs_inodes_used"))
    if stats.HasField("interface"):
        _lower(stats.interface, _MOST, _numbers(stats.interface))
    known: dict[str, guest_pb2.FilesystemStats] = {}
    for filesystem in stats.filesystems:
        if _VOLUME.fullmatch(filesystem.name):
            _lower(filesystem, _MOST, _numbers(filesystem))
            known[filesystem.name] = filesystem
    told = list(known.values())
    del stats.filesystems[:]
    stats.filesystems.extend(told)
    sandbox.stats, sandbox.stats_at_ns = stats, now_ns
    sandbox.stats_taken_ns, sandbox.vm_cpu_at_stats_ns = now_ns, vm_cpu_ns


def _hold(cgroup: guest_pb2.CgroupStats, most_cpu: int, most_memory: int) -> None:
    _lower(cgroup, most_cpu, _CPU)
    _lower(cgroup, most_memory, _MEMORY)
    _lower(cgroup, _MOST, _COUNTS)


def _lower(
    message: guest_pb2.CgroupStats
    | guest_pb2.ContainerStats
    | guest_pb2.InterfaceStats
    | guest_pb2.FilesystemStats,
    most: int,
    names: tuple[str, ...],
) -> None:
    for name in names:
        if getattr(message, name) > most:
            setattr(message, name, most)


def _numbers(message: guest_pb2.InterfaceStats | guest_pb2.FilesystemStats) -> tuple[str, ...]:
    return tuple(f.name for f in message.DESCRIPTOR.fields if f.name != "name")
