"""/metrics, /metrics/probes and /metrics/slis: the node's own figures, under the kubelet's names.

Rooms that measure themselves register with prometheus_client's process-wide registry, and are
found here: `prober_…` under /metrics/probes, all else under /metrics.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric

from vk_provider.kubelet_api.containers import container_statuses
from vk_provider.kubelet_api.sources import KubeletApiSettings, PodSource
from vk_provider.kubelet_api.stats_handlers import exposition

_HTTP = ["method", "path", "server_type", "long_running"]
_LONG = frozenset({"exec", "attach", "portForward", "containerLogs", "run", "debug"})
_STATES = {"waiting": "created", "running": "running", "terminated": "exited"}
_KNOWN_METHODS = frozenset({"OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT"})


class NodeMetrics:
    """Counts the API's own requests, and shows what the node holds."""

    def __init__(self, settings: KubeletApiSettings, pods: PodSource) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # series that the kubelet does not have
        self._settings = settings
        self._pods = pods
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "kubelet_http_requests_total",
            "Number of the http requests received since the server started",
            _HTTP,
            registry=registry,
        )
        self._durations = Histogram(
            "kubelet_http_requests_duration_seconds",
            "Duration in seconds to serve http requests",
            _HTTP,
            registry=registry,
        )
        self._inflight = Gauge(
            "kubelet_http_inflight_requests",
            "Number of the inflight http requests",
            _HTTP,
            registry=registry,
        )
        self._websockets = Counter(
            "kubelet_websocket_streaming_requests_total",
            "Number of streaming requests received over WebSockets",
            ["subresource"],
            registry=registry,
        )

    def middleware(self) -> Middleware:
        """Return the middleware that counts; paths are counted by their first part alone."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            root = _bucket(resource.canonical if resource is not None else "")
            method = request.method if request.method in _KNOWN_METHODS else "other"
            labels = (method, root, "readwrite", str(root in _LONG).lower())
            self._requests.labels(*labels).inc()
            if request.headers.get("Upgrade", "").lower() == "websocket":
                self._websockets.labels(root.lower()).inc()
            with self._inflight.labels(*labels).track_inprogress():
                began = time.perf_counter()
                try:
                    return await handler(request)
                finally:
                    self._durations.labels(*labels).observe(time.perf_counter() - began)

        return count

    async def metrics(self, _: web.Request) -> web.Response:
        """Answer /metrics."""
        return exposition(self._families())

    async def probes(self, _: web.Request) -> web.Response:
        """Answer /metrics/probes."""
        return exposition(
            family
            for family in REGISTRY.collect()
            if family.name.startswith("prober_") or family.name == "process_start_time_seconds"
        )

    async def slis(self, _: web.Request) -> web.Response:
        """Answer /metrics/slis: that this answers is the check."""
        family = GaugeMetricFamily(
            "kubernetes_healthcheck",
            "This metric records the result of a single healthcheck.",
            labels=["name", "type"],
        )
        family.add_metric(["ping", "healthz"], 1)
        return exposition([family])

    def _families(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield from (f for f in REGISTRY.collect() if not f.name.startswith("prober_"))
        yield from self._node()

    def _node(self) -> Iterator[Metric]:
        version = self._settings.version
        major, _, rest = version.removeprefix("v").partition(".")
        build = GaugeMetricFamily(
            "kubernetes_build_info",
            "A metric with a constant '1' value labeled by what was built.",
            labels=["major", "minor", "git_version", "platform"],
        )
        build.add_metric([major, rest.partition(".")[0], version, "linux/amd64"], 1)
        name = GaugeMetricFamily("kubelet_node_name", "The node's name.", labels=["node"])
        name.add_metric([self._settings.node_name], 1)
        provider = GaugeMetricFamily(
            "kubelet_metrics_provider", "Who measures containers.", labels=["provider"]
        )
        provider.add_metric(["cri"], 1)
        yield from (build, name, provider)
        yield from self._pod_counts()

    def _pod_counts(self) -> Iterator[Metric]:
        pods = self._pods.pods()
        states = Tally(
            _STATES.get(state, "unknown")
            for pod in pods
            for status in container_statuses(pod)
            for state in (status.get("state") or {"unknown": None})
        )
        containers = GaugeMetricFamily(
            "kubelet_running_containers",
            "Number of containers by state",
            labels=["container_state"],
        )
        for state in ("created", "exited", "running", "unknown"):
            containers.add_metric([state], states[state])
        phases = Tally((pod.get("status") or {}).get("phase", "Pending") for pod in pods)
        active = phases["Pending"] + phases["Running"]
        yield containers
        for family, value in (
            ("running_pods", phases["Running"]),
            ("desired_pods", len(pods)),
            ("active_pods", active),
        ):
            yield GaugeMetricFamily(
                f"kubelet_{family}", f"Number of pods: {family.replace('_', ' ')}", value=value
            )


def _bucket(path: str) -> str:
    """Return the part of a path that requests are counted by, as the kubelet's getURLRootPath."""
    parts = path.split("/")
    if len(parts) < 2 or not parts[1]:
        return "other"
    if parts[1] == "metrics" and len(parts) > 2:
        return f"metrics/{parts[2]}"
    return parts[1]
