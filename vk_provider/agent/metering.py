"""What everything uses, once a second: for those who watch, and for the bill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import psutil

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.context import Context
from vk_provider.agent.guest_stats import ask_or_hold
from vk_provider.agent.logs import log_bytes
from vk_provider.agent.records import Phase
from vk_provider.agent.sandbox import Sandbox
from vk_provider.agent.usage_records import usage_record
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger

_log = get_logger("agent.metering")

_INTERVAL_S = 1.0
_RETENTION_CHECK_S = 3600.0
_LOG_SIZE_EVERY = 10
_MAX_FILESYSTEMS = 256
_MAX_NAME = 253


class Metering:
    """Samples every live sandbox each second. `run` belongs to the agent's task group."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._snapshot = pb.UsageSnapshot()
        self._changed = asyncio.Event()
        self._process = psutil.Process()
        self._ticks = 0
        self._log_bytes: dict[str, int] = {}
        self._cpu_floor: dict[str, int] = {}
        self._told: dict[str, tuple[int, pb.SandboxUsage]] = {}
        """By sandbox: when the sample was taken, and what it says."""

    async def run(self) -> None:
        """Sample until cancelled; ticks that were missed are left out, not made up for."""
        clock = self._context.clock
        due = clock.monotonic()
        next_retention = due
        while True:
            now = clock.monotonic()
            due = max(due + _INTERVAL_S, now)
            await clock.sleep(due - now)
            try:
                self._context.write_notes()
                self._sample()
                if self._context.spares is not None:
                    self._context.spares.look()
                if due >= next_retention:
                    next_retention = due + _RETENTION_CHECK_S
                    self._forget_old()
            except (VkError, OSError, psutil.Error) as exc:
                # A process that has just gone, a full disk: the next second is another one.
                _log.warning("the use of this second was not written down", why=str(exc))

    async def watch(self) -> AsyncGenerator[pb.UsageSnapshot]:
        """Yield each snapshot from now on; a slow reader gets the newest, not all."""
        while True:
            await self._changed.wait()
            yield self._snapshot

    def _sample(self) -> None:
        context = self._context
        self._ticks += 1
        now = context.clock.now_ns()
        live = [
            s
            for s in context.sandboxes.values()
            if s.record.phase is Phase.READY and s.machine is not None
        ]
        if self._ticks % _LOG_SIZE_EVERY == 1:
            self._measure_logs(live)
        snapshot = pb.UsageSnapshot(time_ns=now, sandboxes=[self._sandbox(s, now) for s in live])
        _add_host(snapshot, self._process)
        if context.spares is not None:
            snapshot.spare_vms = context.spares.ready
        for sandbox, used in zip(live, snapshot.sandboxes, strict=True):
            record = usage_record(sandbox, now)
            record.vm_cpu_ns = used.vm_cpu_ns
            sandbox.usage = record
        if live:
            context.store.put_usage([s.usage for s in live if s.usage is not None])
        self._snapshot = snapshot
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _sandbox(self, sandbox: Sandbox, now_ns: int) -> pb.SandboxUsage:
        assert sandbox.machine is not None
        vm = sandbox.machine.vm.usage()
        ask_or_hold(sandbox, vm.cpu_ns, now_ns)
        taken_ns, used = self._told.get(sandbox.id, (-1, pb.SandboxUsage()))
        if taken_ns != sandbox.stats_taken_ns:
            used = self._figures(sandbox)
            self._told[sandbox.id] = (sandbox.stats_taken_ns, used)
        used.time_ns = sandbox.stats_at_ns or now_ns
        used.vm_cpu_ns = max(0, vm.cpu_ns - sandbox.record.vm_cpu_before_ns)
        used.vm_memory_bytes = vm.private_memory_bytes
        return used

    def _figures(self, sandbox: Sandbox) -> pb.SandboxUsage:
        """Return what the newest sample says."""
        used = pb.SandboxUsage(
            sandbox_id=sandbox.id,
            pod=sandbox.record.status.pod,
            started_at_ns=sandbox.record.started_at_ns,
        )
        stats = sandbox.stats
        if stats is None:
            return used
        used.pod_counters.CopyFrom(self._counters(stats.pod, sandbox.id))
        # By id: a guest may name a container as often as it likes, and others than its own.
        told = {c.container_id: c for c in stats.containers if c.container_id in sandbox.containers}
        for of_container in told.values():
            container = sandbox.containers[of_container.container_id]
            counters = self._counters(of_container.cgroup, container.id)
            counters.rootfs_used_bytes = of_container.rootfs_used_bytes
            counters.rootfs_inodes_used = of_container.rootfs_inodes_used
            counters.logs_used_bytes = self._log_bytes.get(container.id, 0)
            used.containers.add(
                container_id=container.id,
                name=container.record.status.name,
                started_at_ns=container.record.status.started_at_ns,
                counters=counters,
            )
        if stats.HasField("interface"):
            used.network.CopyFrom(_network(stats.interface))
        for fs in stats.filesystems[:_MAX_FILESYSTEMS]:
            if fs.name and len(fs.name) <= _MAX_NAME:
                used.volumes.add(
                    name=fs.name,
                    used_bytes=fs.used_bytes,
                    capacity_bytes=fs.capacity_bytes,
                    available_bytes=fs.available_bytes,
                    inodes=fs.inodes,
                    inodes_free=fs.inodes_free,
                    inodes_used=max(0, fs.inodes - fs.inodes_free),
                )
        return used

    def _counters(self, cgroup: guest_pb2.CgroupStats, key: str) -> pb.UsageCounters:
        # A guest that counts backwards would be paid for it.
        cpu_ns = max(cgroup.cpu_usec * 1000, self._cpu_floor.get(key, 0))
        self._cpu_floor[key] = cpu_ns
        return pb.UsageCounters(
            cpu_ns=cpu_ns,
            memory_working_set_bytes=max(0, cgroup.memory_current - cgroup.memory_inactive_file),
            memory_usage_bytes=cgroup.memory_current,
            memory_rss_bytes=cgroup.memory_anon,
            page_faults=cgroup.pgfault,
            major_page_faults=cgroup.pgmajfault,
            memory_limit_bytes=cgroup.memory_max,
            disk_read_bytes=cgroup.io_read_bytes,
            disk_write_bytes=cgroup.io_write_bytes,
            processes=cgroup.pids_current,
        )

    def _measure_logs(self, live: list[Sandbox]) -> None:
        containers = [c for s in live for c in s.containers.values()]
        self._log_bytes = {c.id: log_bytes(c.log_path) for c in containers}
        known = {s.id for s in live} | {c.id for c in containers}
        self._told = {key: told for key, told in self._told.items() if key in known}
        self._cpu_floor = {key: ns for key, ns in self._cpu_floor.items() if key in known}

    def _forget_old(self) -> None:
        kept_ns = self._context.settings.usage_retention_s * 1_000_000_000
        self._context.store.delete_usage_before(self._context.clock.now_ns() - kept_ns)


def _add_host(snapshot: pb.UsageSnapshot, process: psutil.Process) -> None:
    times, memory = psutil.cpu_times(), psutil.virtual_memory()
    idle = times.idle + times.iowait
    busy = sum(times[:8]) - idle  # guest time is within user time
    snapshot.host_cpu_ns = int(busy * 1e9)
    snapshot.host_memory_working_set_bytes = memory.total - memory.available
    snapshot.host_memory_available_bytes = memory.available
    snapshot.host_memory_total_bytes = memory.total
    with process.oneshot():
        own, own_memory = process.cpu_times(), process.memory_info()
    snapshot.agent.cpu_ns = int((own.user + own.system) * 1e9)
    snapshot.agent.memory_usage_bytes = own_memory.rss
    snapshot.agent.memory_working_set_bytes = own_memory.rss
    snapshot.agent.memory_rss_bytes = own_memory.rss
    name = _default_interface()
    counters = psutil.net_io_counters(pernic=True).get(name)
    if counters is not None:
        snapshot.host_network.CopyFrom(
            pb.NetworkUsage(
                interface=name,
                rx_bytes=counters.bytes_recv,
                rx_packets=counters.packets_recv,
                rx_errors=counters.errin,
                rx_dropped=counters.dropin,
                tx_bytes=counters.bytes_sent,
                tx_packets=counters.packets_sent,
                tx_errors=counters.errout,
                tx_dropped=counters.dropout,
            )
        )


def _default_interface() -> str:
    """Return the interface of the default route, "" where there is none."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000":
            return fields[0]
    return ""


def _network(seen: guest_pb2.InterfaceStats) -> pb.NetworkUsage:
    return pb.NetworkUsage(
        interface="eth0",
        rx_bytes=seen.rx_bytes,
        rx_packets=seen.rx_packets,
        rx_errors=seen.rx_errors,
        rx_dropped=seen.rx_dropped,
        tx_bytes=seen.tx_bytes,
        tx_packets=seen.tx_packets,
        tx_errors=seen.tx_errors,
        tx_dropped=seen.tx_dropped,
    )
