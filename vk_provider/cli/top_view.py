"""Usage snapshots as lines of JSON and as a live table."""

from __future__ import annotations

from typing import Any

import orjson
from rich.console import Console
from rich.live import Live
from rich.table import Table

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.cli.text import size


def json_line(snapshot: pb.UsageSnapshot) -> str:
    """Return a snapshot as one line; counters grow from the pod's start, units are in the names."""
    return orjson.dumps(
        {
            "time_ns": snapshot.time_ns,
            "pods": [_pod(s) for s in snapshot.sandboxes],
            "host": {
                "cpu_ns": snapshot.host_cpu_ns,
                "memory_working_set_bytes": snapshot.host_memory_working_set_bytes,
                "memory_available_bytes": snapshot.host_memory_available_bytes,
                "memory_total_bytes": snapshot.host_memory_total_bytes,
            },
            "agent": _counters(snapshot.agent),
        }
    ).decode()


def _pod(sandbox: pb.SandboxUsage) -> dict[str, Any]:
    network = sandbox.network
    return {
        "namespace": sandbox.pod.namespace,
        "name": sandbox.pod.name,
        "uid": sandbox.pod.uid,
        "sandbox_id": sandbox.sandbox_id,
        "time_ns": sandbox.time_ns,
        "started_at_ns": sandbox.started_at_ns,
        **_counters(sandbox.pod_counters),
        "vm_cpu_ns": sandbox.vm_cpu_ns,
        "vm_memory_bytes": sandbox.vm_memory_bytes,
        "network_rx_bytes": network.rx_bytes,
        "network_tx_bytes": network.tx_bytes,
        "volumes": [
            {"name": v.name, "used_bytes": v.used_bytes, "capacity_bytes": v.capacity_bytes}
            for v in sandbox.volumes
        ],
        "containers": [{"name": c.name, **_counters(c.counters)} for c in sandbox.containers],
    }


def _counters(counters: pb.UsageCounters) -> dict[str, int]:
    return {
        "cpu_ns": counters.cpu_ns,
        "memory_working_set_bytes": counters.memory_working_set_bytes,
        "memory_limit_bytes": counters.memory_limit_bytes,
        "disk_read_bytes": counters.disk_read_bytes,
        "disk_write_bytes": counters.disk_write_bytes,
        "rootfs_used_bytes": counters.rootfs_used_bytes,
        "processes": counters.processes,
    }


class Rates:
    """CPU shares from two samples of each sandbox and container."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[int, int]] = {}
        self._now: dict[str, tuple[int, int]] = {}

    def cores(self, key: str, time_ns: int, cpu_ns: int) -> float | None:
        """Return the CPUs used since the sample before; None for the first, or a counter reset."""
        self._now[key] = (time_ns, cpu_ns)
        before = self._before.get(key)
        if before is None or time_ns <= before[0] or cpu_ns < before[1]:
            return None
        return (cpu_ns - before[1]) / (time_ns - before[0])

    def next_sample(self) -> None:
        """Forget what is no longer there."""
        self._before, self._now = self._now, {}


class LiveTable:
    """The table on the terminal, drawn again with each snapshot."""

    def __init__(self, console: Console | None = None) -> None:
        self._rates = Rates()
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def show(self, snapshot: pb.UsageSnapshot) -> None:
        """Draw a snapshot."""
        self._live.update(self._table(snapshot), refresh=True)
        self._rates.next_sample()

    def close(self) -> None:
        """Leave the last table on the screen."""
        self._live.stop()

    def _table(self, snapshot: pb.UsageSnapshot) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("POD / CONTAINER")
        for name in ("CPU", "MEMORY", "LIMIT", "VM CPU", "VM MEMORY", "NET RX/TX", "DISK R/W"):
            table.add_column(name, justify="right")
        for sandbox in sorted(snapshot.sandboxes, key=_name):
            counters, network = sandbox.pod_counters, sandbox.network
            key = sandbox.sandbox_id
            table.add_row(
                _name(sandbox),
                self._cpu(key, sandbox.time_ns, counters.cpu_ns),
                size(counters.memory_working_set_bytes),
                size(counters.memory_limit_bytes) if counters.memory_limit_bytes else "-",
                self._cpu(f"{key} vm", snapshot.time_ns, sandbox.vm_cpu_ns),
                size(sandbox.vm_memory_bytes),
                f"{size(network.rx_bytes)}/{size(network.tx_bytes)}",
                f"{size(counters.disk_read_bytes)}/{size(counters.disk_write_bytes)}",
            )
            for container in sandbox.containers:
                counters = container.counters
                table.add_row(
                    f"  {container.name}",
                    self._cpu(container.container_id, sandbox.time_ns, counters.cpu_ns),
                    size(counters.memory_working_set_bytes),
                    size(counters.memory_limit_bytes) if counters.memory_limit_bytes else "-",
                    *("",) * 4,
                    style="dim",
                )
        return table

    def _cpu(self, key: str, time_ns: int, cpu_ns: int) -> str:
        cores = self._rates.cores(key, time_ns, cpu_ns)
        return "-" if cores is None else f"{cores * 1000:.0f}m"


def _name(sandbox: pb.SandboxUsage) -> str:
    return f"{sandbox.pod.namespace}/{sandbox.pod.name}"
