"""/stats/summary, /metrics/resource and /metrics/cadvisor over the usage cache."""

from __future__ import annotations

from collections.abc import Iterable

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import Metric

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger
from vk_provider.kubelet_api.cadvisor_metrics import cadvisor_metrics
from vk_provider.kubelet_api.resource_metrics import resource_metrics
from vk_provider.kubelet_api.sources import PodSource
from vk_provider.kubelet_api.stats_summary import summary
from vk_provider.kubelet_api.usage_cache import UsageCache
from vk_provider.runtime.api import Runtime

log = get_logger("kubelet_api.stats")


class StatsHandlers:
    """Serves usage figures as of the runtime's newest snapshot."""

    def __init__(
        self, node_name: str, pods: PodSource, runtime: Runtime, usage: UsageCache, start_ns: int
    ) -> None:
        self._node_name = node_name
        self._pods = pods
        self._runtime = runtime
        self._usage = usage
        self._start_ns = start_ns

    async def summary(self, request: web.Request) -> web.Response:
        """Answer /stats/summary; `only_cpu_and_memory=true` leaves out the rest."""
        snapshot = self._usage.snapshot
        if snapshot is None:
            return web.Response(
                status=500, text="Internal Error: the runtime gives no usage figures just now"
            )
        host = None
        if request.query.get("only_cpu_and_memory") != "true":
            try:
                host = await self._runtime.host_info()
            except VkError as exc:
                return web.Response(status=500, text=f"Internal Error: {exc}")
        body = summary(self._node_name, snapshot, self._usage.rates, host, self._start_ns)
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def resource(self, _: web.Request) -> web.Response:
        """Answer /metrics/resource."""
        return exposition(resource_metrics(self._usage.snapshot))

    async def cadvisor(self, _: web.Request) -> web.Response:
        """Answer /metrics/cadvisor."""
        host: pb.HostInfo | None = None
        try:
            host = await self._runtime.host_info()
        except VkError as exc:
            log.debug("no figures of the host", error=str(exc))
        pods = {pod["metadata"]["uid"]: pod for pod in self._pods.pods()}
        return exposition(cadvisor_metrics(self._usage.snapshot, host, pods))


class _Families:
    """What `generate_latest` wants of a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(families: Iterable[Metric]) -> web.Response:
    """Return metric families in Prometheus' text format."""
    body = generate_latest(_Families(families))
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
