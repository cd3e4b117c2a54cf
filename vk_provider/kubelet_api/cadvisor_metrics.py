"""/metrics/cadvisor: the names and labels that dashboards of containers read.

After `github.com/google/cadvisor/lib/metrics` with the kubelet's labels. The pod's own cgroup has
`container=""` and `name=""`; the network is the pod's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Invalid
from vk_provider.common.quantity import cpu_milli
from vk_provider.kubelet_api.containers import container_spec

_LABELS = ["container", "id", "image", "name", "namespace", "pod"]
_PERIOD_US = 100_000

Pods = Mapping[str, Mapping[str, Any]]  # by UID


@dataclass(frozen=True, slots=True)
class _Subject:
    """One cgroup: its labels, its counters, when it was read and when it began."""

    labels: list[str]
    counters: pb.UsageCounters
    at_s: float
    start_ns: int
    spec: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Figure:
    """One family: what it is called and how it is read from a cgroup's counters."""

    name: str
    help: str
    counter: bool
    read: Callable[[pb.UsageCounters], float]
    extra: tuple[str, str] | None = None


_FIGURES = (
    _Figure(
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed in seconds.",
        True,
        lambda c: c.cpu_ns / 1e9,
        ("cpu", "total"),
    ),
    _Figure(
        "container_memory_working_set_bytes",
        "Current working set in bytes.",
        False,
        lambda c: c.memory_working_set_bytes,
    ),
    _Figure(
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        False,
        lambda c: c.memory_usage_bytes,
    ),
    _Figure("container_memory_rss", "Size of RSS in bytes.", False, lambda c: c.memory_rss_bytes),
    _Figure(
        "container_fs_reads_bytes_total",
        "Cumulative count of bytes read",
        True,
        lambda c: c.disk_read_bytes,
        ("device", ""),
    ),
    _Figure(
        "container_fs_writes_bytes_total",
        "Cumulative count of bytes written",
        True,
        lambda c: c.disk_write_bytes,
        ("device", ""),
    ),
    _Figure(
        "container_fs_usage_bytes",
        "Number of bytes that are consumed by the container on this filesystem.",
        False,
        lambda c: c.rootfs_used_bytes,
        ("device", ""),
    ),
    _Figure(
        "container_processes",
        "Number of processes running inside the container.",
        False,
        lambda c: c.processes,
    ),
)


def cadvisor_metrics(
    snapshot: pb.UsageSnapshot | None, host: pb.HostInfo | None, pods: Pods
) -> Iterator[Metric]:
    """Yield all families; `pods` give images and limits, which the runtime's figures lack."""
    error = 1.0 if snapshot is None else 0.0
    yield GaugeMetricFamily(
        "container_scrape_error",
        "1 if there was an error while getting container metrics, 0 otherwise",
        value=error,
    )
    if host is not None:
        yield from _machine(host)
    if snapshot is None:
        return
    subjects = [subject for each in snapshot.sandboxes for subject in _subjects(each, pods)]
    root = pb.UsageCounters(
        cpu_ns=snapshot.host_cpu_ns,
        memory_working_set_bytes=snapshot.host_memory_working_set_bytes,
        memory_usage_bytes=snapshot.host_memory_total_bytes - snapshot.host_memory_available_bytes
        if snapshot.host_memory_total_bytes > snapshot.host_memory_available_bytes
        else 0,
    )
    whole_host = _Subject(["", "/", "", "", "", ""], root, snapshot.time_ns / 1e9, 0)
    for figure in _FIGURES:
        yield _family(figure, [whole_host, *subjects])
    yield from _specs(subjects)
    yield from _network(snapshot)


def _subjects(sandbox: pb.SandboxUsage, pods: Pods) -> Iterator[_Subject]:
    pod = sandbox.pod
    cgroup = f"/kubepods/pod{pod.uid}"
    at_s = sandbox.time_ns / 1e9
    yield _Subject(
        ["", cgroup, "", "", pod.namespace, pod.name],
        sandbox.pod_counters,
        at_s,
        sandbox.started_at_ns,
    )
    for each in sandbox.containers:
        spec = container_spec(pods.get(pod.uid) or {}, each.name) or {}
        id_ = each.container_id
        labels = [
            each.name,
            f"{cgroup}/{id_}",
            str(spec.get("image") or ""),
            id_,
            pod.namespace,
            pod.name,
        ]
        yield _Subject(labels, each.counters, at_s, each.started_at_ns, spec)


def _family(figure: _Figure, subjects: Sequence[_Subject]) -> Metric:
    labels = [*_LABELS, figure.extra[0]] if figure.extra else _LABELS
    made = CounterMetricFamily if figure.counter else GaugeMetricFamily
    family = made(figure.name, figure.help, labels=labels)
    for each in subjects:
        values = [*each.labels, figure.extra[1]] if figure.extra else each.labels
        family.add_metric(values, figure.read(each.counters), timestamp=each.at_s)
    return family


def _specs(subjects: Sequence[_Subject]) -> Iterator[Metric]:
    start = _gauge("container_start_time_seconds", "Start time of the container in seconds.")
    seen = _gauge("container_last_seen", "Last time a container was seen by the exporter")
    period = _gauge("container_spec_cpu_period", "CPU period of the container.")
    quota = _gauge("container_spec_cpu_quota", "CPU quota of the container.")
    shares = _gauge("container_spec_cpu_shares", "CPU share of the container.")
    memory = _gauge("container_spec_memory_limit_bytes", "Memory limit for the container.")
    for each in subjects:
        seen.add_metric(each.labels, each.at_s)
        if each.start_ns:
            start.add_metric(each.labels, each.start_ns / 1e9)
        memory.add_metric(each.labels, each.counters.memory_limit_bytes)
        if each.spec is None:
            continue
        period.add_metric(each.labels, _PERIOD_US)
        limit = _milli_cpu(each.spec, "limits")
        request = _milli_cpu(each.spec, "requests") or limit
        if limit:
            quota.add_metric(each.labels, limit * _PERIOD_US / 1000)
        shares.add_metric(each.labels, max(request * 1024 // 1000, 2))
    yield from (start, seen, period, quota, shares, memory)


def _network(snapshot: pb.UsageSnapshot) -> Iterator[Metric]:
    families = {
        f"container_network_{way}_{what}_total": CounterMetricFamily(
            f"container_network_{way}_{what}_total",
            f"Cumulative count of {what.replace('_', ' ')} ({way})",
            labels=[*_LABELS, "interface"],
        )
        for way in ("receive", "transmit")
        for what in ("bytes", "packets", "errors", "packets_dropped")
    }
    for sandbox in snapshot.sandboxes:
        if not sandbox.HasField("network"):
            continue
        usage, pod = sandbox.network, sandbox.pod
        cgroup = f"/kubepods/pod{pod.uid}"
        labels = ["", cgroup, "", "", pod.namespace, pod.name, usage.interface or "eth0"]
        values = {
            "receive_bytes": usage.rx_bytes,
            "receive_packets": usage.rx_packets,
            "receive_errors": usage.rx_errors,
            "receive_packets_dropped": usage.rx_dropped,
            "transmit_bytes": usage.tx_bytes,
            "transmit_packets": usage.tx_packets,
            "transmit_errors": usage.tx_errors,
            "transmit_packets_dropped": usage.tx_dropped,
        }
        for name, value in values.items():
            families[f"container_network_{name}_total"].add_metric(
                labels, value, timestamp=sandbox.time_ns / 1e9
            )
    yield from families.values()


def _machine(host: pb.HostInfo) -> Iterator[Metric]:
    labels = ["boot_id", "machine_id", "system_uuid"]
    values = [host.boot_id, host.machine_id, host.system_uuid]
    cores = GaugeMetricFamily("machine_cpu_cores", "Number of logical CPU cores.", labels=labels)
    cores.add_metric(values, host.cpu_milli / 1000)
    memory = GaugeMetricFamily(
        "machine_memory_bytes", "Amount of memory installed on the machine.", labels=labels
    )
    memory.add_metric(values, host.memory_bytes)
    yield from (cores, memory)


def _milli_cpu(spec: Mapping[str, Any], kind: str) -> int:
    value = ((spec.get("resources") or {}).get(kind) or {}).get("cpu")
    try:
        return cpu_milli(value) if value is not None else 0
    except Invalid:
        return 0


def _gauge(name: str, help_text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, labels=_LABELS)
