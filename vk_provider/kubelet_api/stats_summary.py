"""The body of /stats/summary, from a usage snapshot (k8s.io/kubelet/pkg/apis/stats/v1alpha1).

Pure: what is not known is left out, as the kubelet does it; it is never shown as zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.kubelet_api.usage_cache import NODE, CpuRates

Stats = dict[str, Any]


def summary(
    node_name: str,
    snapshot: pb.UsageSnapshot,
    rates: CpuRates,
    host: pb.HostInfo | None,
    node_start_ns: int,
) -> Stats:
    """Return everything; `host` None: processor and memory alone (`only_cpu_and_memory`)."""
    whole = host is not None
    node: Stats = {
        "nodeName": node_name,
        "startTime": rfc3339(node_start_ns),
        "cpu": _cpu(snapshot.time_ns, snapshot.host_cpu_ns, rates.nano_cores(NODE)),
        "memory": {
            "time": rfc3339(snapshot.time_ns),
            "availableBytes": snapshot.host_memory_available_bytes,
            "usageBytes": _used(snapshot),
            "workingSetBytes": snapshot.host_memory_working_set_bytes,
        },
    }
    if host is not None:
        image_fs = _image_fs(host, snapshot.time_ns)
        node["fs"] = image_fs
        node["runtime"] = {"imageFs": image_fs, "containerFs": image_fs}
        if snapshot.HasField("host_network"):
            node["network"] = _network(snapshot.host_network, snapshot.time_ns)
    system = _system_containers(snapshot)
    if system:
        node["systemContainers"] = system
    pods = [_pod(each, rates, whole=whole) for each in snapshot.sandboxes]
    return {"node": node, "pods": pods}


def rfc3339(time_ns: int) -> str | None:
    """Return a metav1.Time (whole seconds), None for "not yet"."""
    if not time_ns:
        return None
    return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _pod(sandbox: pb.SandboxUsage, rates: CpuRates, *, whole: bool) -> Stats:
    at = sandbox.time_ns
    counters = sandbox.pod_counters
    pod: Stats = {
        "podRef": {
            "name": sandbox.pod.name,
            "namespace": sandbox.pod.namespace,
            "uid": sandbox.pod.uid,
        },
        "startTime": rfc3339(sandbox.started_at_ns),
        "containers": [_container(c, at, rates, whole=whole) for c in sandbox.containers],
        "cpu": _cpu(at, counters.cpu_ns, rates.nano_cores(sandbox.sandbox_id)),
        "memory": _memory(at, counters),
    }
    if not whole:
        return pod
    if sandbox.HasField("network"):
        pod["network"] = _network(sandbox.network, at)
    if sandbox.volumes:
        pod["volume"] = [{**_volume(volume, at), "name": volume.name} for volume in sandbox.volumes]
    used = [c.counters.rootfs_used_bytes + c.counters.logs_used_bytes for c in sandbox.containers]
    inodes = [c.counters.rootfs_inodes_used for c in sandbox.containers]
    pod["ephemeral-storage"] = {
        "time": rfc3339(at),
        "usedBytes": sum(used),
        "inodesUsed": sum(inodes),
    }
    pod["process_stats"] = {"process_count": counters.processes}
    return pod


def _container(usage: pb.ContainerUsage, at: int, rates: CpuRates, *, whole: bool) -> Stats:
    counters = usage.counters
    container: Stats = {
        "name": usage.name,
        "startTime": rfc3339(usage.started_at_ns),
        "cpu": _cpu(at, counters.cpu_ns, rates.nano_cores(usage.container_id)),
        "memory": _memory(at, counters),
    }
    if whole:
        container["rootfs"] = {
            "time": rfc3339(at),
            "usedBytes": counters.rootfs_used_bytes,
            "inodesUsed": counters.rootfs_inodes_used,
        }
        container["logs"] = {"time": rfc3339(at), "usedBytes": counters.logs_used_bytes}
    return container


def _cpu(at: int, cpu_ns: int, nano_cores: int | None) -> Stats:
    cpu: Stats = {"time": rfc3339(at), "usageCoreNanoSeconds": cpu_ns}
    if nano_cores is not None:
        cpu["usageNanoCores"] = nano_cores
    return cpu


def _memory(at: int, counters: pb.UsageCounters) -> Stats:
    memory: Stats = {
        "time": rfc3339(at),
        "usageBytes": counters.memory_usage_bytes,
        "workingSetBytes": counters.memory_working_set_bytes,
        "rssBytes": counters.memory_rss_bytes,
        "pageFaults": counters.page_faults,
        "majorPageFaults": counters.major_page_faults,
    }
    if counters.memory_limit_bytes:
        free = counters.memory_limit_bytes - counters.memory_working_set_bytes
        memory["availableBytes"] = max(free, 0)
    return memory


def _network(usage: pb.NetworkUsage, at: int) -> Stats:
    interface = {
        "name": usage.interface,
        "rxBytes": usage.rx_bytes,
        "rxErrors": usage.rx_errors,
        "txBytes": usage.tx_bytes,
        "txErrors": usage.tx_errors,
    }
    return {"time": rfc3339(at), **interface, "interfaces": [interface]}


def _volume(usage: pb.VolumeUsage, at: int) -> Mapping[str, Any]:
    return {
        "time": rfc3339(at),
        "availableBytes": usage.available_bytes,
        "capacityBytes": usage.capacity_bytes,
        "usedBytes": usage.used_bytes,
        "inodesFree": usage.inodes_free,
        "inodes": usage.inodes,
        "inodesUsed": usage.inodes_used,
    }


def _image_fs(host: pb.HostInfo, at: int) -> Stats:
    return {
        "time": rfc3339(at),
        "availableBytes": host.image_fs_available_bytes,
        "capacityBytes": host.image_fs_capacity_bytes,
        "usedBytes": host.image_fs_used_bytes,
        "inodesFree": host.image_fs_inodes_free,
        "inodes": host.image_fs_inodes,
        "inodesUsed": max(host.image_fs_inodes - host.image_fs_inodes_free, 0),
    }


def _system_containers(snapshot: pb.UsageSnapshot) -> list[Stats]:
    """The agent as the "runtime", and all pods together, under the kubelet's names."""
    at = snapshot.time_ns
    found: list[Stats] = []
    if snapshot.HasField("agent"):
        found.append(
            {
                "name": "runtime",
                "startTime": None,
                "cpu": _cpu(at, snapshot.agent.cpu_ns, None),
                "memory": _memory(at, snapshot.agent),
            }
        )
    cpu_ns = sum(each.pod_counters.cpu_ns for each in snapshot.sandboxes)
    working = sum(each.pod_counters.memory_working_set_bytes for each in snapshot.sandboxes)
    found.append(
        {
            "name": "pods",
            "startTime": None,
            "cpu": _cpu(at, cpu_ns, None),
            "memory": {"time": rfc3339(at), "workingSetBytes": working},
        }
    )
    return found


def _used(snapshot: pb.UsageSnapshot) -> int:
    return max(snapshot.host_memory_total_bytes - snapshot.host_memory_available_bytes, 0)
