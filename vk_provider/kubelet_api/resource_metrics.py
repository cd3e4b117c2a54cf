"""/metrics/resource: what metrics-server reads, and through it every autoscaler.

Names and kinds from `pkg/kubelet/metrics/collectors/resource_metrics.go`; `vk_provider_vm_…` are
ours: what a pod's microVM takes of the host, which is more than the pod uses inside.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from vk_provider._pb import sandbox_pb2 as pb

_CONTAINER = ["container", "pod", "namespace"]
_POD = ["pod", "namespace"]


def resource_metrics(snapshot: pb.UsageSnapshot | None) -> Iterator[Metric]:
    """Yield the families of a snapshot; None: the runtime is away, and that alone is told."""
    error = 1.0 if snapshot is None else 0.0
    if snapshot is not None:
        yield from _node(snapshot)
        yield from _containers(snapshot)
        yield from _pods(snapshot)
    help_text = "1 if there was an error while getting container metrics, 0 otherwise"
    yield GaugeMetricFamily("resource_scrape_error", help_text, value=error)
    yield GaugeMetricFamily("scrape_error", help_text, value=error)


def _node(snapshot: pb.UsageSnapshot) -> Iterator[Metric]:
    at = snapshot.time_ns / 1e9
    cpu = CounterMetricFamily(
        "node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds"
    )
    cpu.add_metric([], snapshot.host_cpu_ns / 1e9, timestamp=at)
    yield cpu
    memory = GaugeMetricFamily(
        "node_memory_working_set_bytes", "Current working set of the node in bytes"
    )
    memory.add_metric([], snapshot.host_memory_working_set_bytes, timestamp=at)
    yield memory


def _containers(snapshot: pb.UsageSnapshot) -> Iterator[Metric]:
    cpu = CounterMetricFamily(
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the container in core-seconds",
        labels=_CONTAINER,
    )
    memory = GaugeMetricFamily(
        "container_memory_working_set_bytes",
        "Current working set of the container in bytes",
        labels=_CONTAINER,
    )
    start = GaugeMetricFamily(
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds",
        labels=_CONTAINER,
    )
    for sandbox in snapshot.sandboxes:
        at = sandbox.time_ns / 1e9
        for container in sandbox.containers:
            labels = [container.name, sandbox.pod.name, sandbox.pod.namespace]
            counters = container.counters
            cpu.add_metric(labels, counters.cpu_ns / 1e9, timestamp=at)
            memory.add_metric(labels, counters.memory_working_set_bytes, timestamp=at)
            if container.started_at_ns:
                start.add_metric(labels, container.started_at_ns / 1e9)
    yield from (cpu, memory, start)


def _pods(snapshot: pb.UsageSnapshot) -> Iterator[Metric]:
    cpu = CounterMetricFamily(
        "pod_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the pod in core-seconds",
        labels=_POD,
    )
    memory = GaugeMetricFamily(
        "pod_memory_working_set_bytes", "Current working set of the pod in bytes", labels=_POD
    )
    vm_cpu = CounterMetricFamily(
        "vk_provider_vm_cpu_usage_seconds_total",
        "Cumulative cpu time of the pod's microVM on the host in core-seconds, the pod's included",
        labels=_POD,
    )
    vm_memory = GaugeMetricFamily(
        "vk_provider_vm_memory_private_bytes",
        "Memory of the host that the pod's microVM shares with no other in bytes",
        labels=_POD,
    )
    for sandbox in snapshot.sandboxes:
        at = sandbox.time_ns / 1e9
        labels = [sandbox.pod.name, sandbox.pod.namespace]
        counters = sandbox.pod_counters
        cpu.add_metric(labels, counters.cpu_ns / 1e9, timestamp=at)
        memory.add_metric(labels, counters.memory_working_set_bytes, timestamp=at)
        vm_cpu.add_metric(labels, sandbox.vm_cpu_ns / 1e9, timestamp=at)
        vm_memory.add_metric(labels, sandbox.vm_memory_bytes, timestamp=at)
    yield from (cpu, memory, vm_cpu, vm_memory)
