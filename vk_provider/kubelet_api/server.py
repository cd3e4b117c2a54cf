"""The servers: HTTPS for the cluster, and plain HTTP on the loopback for health alone."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from vk_provider.common.clock import Clock
from vk_provider.common.errors import Unavailable
from vk_provider.common.logging import get_logger
from vk_provider.kubelet_api.access import access_middleware
from vk_provider.kubelet_api.authentication import Authenticator
from vk_provider.kubelet_api.authorization import Authorizer
from vk_provider.kubelet_api.container_logs import ContainerLogs
from vk_provider.kubelet_api.exchange import StreamLimits
from vk_provider.kubelet_api.health import Check, Health
from vk_provider.kubelet_api.node_metrics import NodeMetrics
from vk_provider.kubelet_api.pod_lists import PodLists
from vk_provider.kubelet_api.sources import KubeletApiSettings, PodSource, Reviewer
from vk_provider.kubelet_api.stats_handlers import StatsHandlers
from vk_provider.kubelet_api.streaming_handlers import StreamingHandlers
from vk_provider.kubelet_api.usage_cache import UsageCache
from vk_provider.kubelet_api.zpages import ZPages
from vk_provider.runtime.api import Runtime

_KEEP_ALIVE_S = 90.0  # ListenAndServeKubeletServer's IdleTimeout
_SHUTDOWN_S = 2.0

log = get_logger("kubelet_api.server")


class KubeletServer:
    """Serves the kubelet's API of one node.

    `ssl_context` stays the owner's: a certificate loaded into it later takes effect with the next
    handshake. `listening` is set while connections are taken. `checks` are further health checks
    by name; "syncloop" replaces the built-in one.
    """

    def __init__(
        self,
        settings: KubeletApiSettings,
        ssl_context: ssl.SSLContext,
        *,
        pods: PodSource,
        runtime: Runtime,
        reviewer: Reviewer,
        clock: Clock,
        checks: Mapping[str, Check] | None = None,
        limits: StreamLimits | None = None,
    ) -> None:
        self._settings = settings
        self._ssl_context = ssl_context
        self._pods = pods
        self._runtime = runtime
        self._reviewer = reviewer
        self._clock = clock
        self._health = Health(checks or {})
        self._limits = limits or StreamLimits()
        self._usage = UsageCache(runtime, clock)
        self._start_ns = clock.now_ns()
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled, which ends open streams; Unavailable where it can't listen."""
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self.listening.set()
            try:
                await self._usage.run()
            finally:
                self.listening.clear()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self._settings
        apps: list[tuple[web.Application, str, int, ssl.SSLContext | None]] = [
            (self.application(), settings.listen_address, settings.port, self._ssl_context),
        ]
        if settings.healthz_port:
            apps.append((self._plain_application(), "127.0.0.1", settings.healthz_port, None))
        for app, host, port, context in apps:
            runner = _runner(app)
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await _listen(runner, host, port, context)

    def application(self) -> web.Application:
        """Return the application behind authentication and authorization."""
        metrics = NodeMetrics(self._settings, self._pods)
        app = web.Application(
            middlewares=[
                metrics.middleware(),
                access_middleware(
                    Authenticator(self._reviewer, self._clock),
                    Authorizer(self._reviewer, self._settings.node_name, self._clock),
                ),
            ]
        )
        self._add_health(app)
        self._add_figures(app, metrics)
        logs = ContainerLogs(self._pods, self._runtime, self._clock)
        streams = StreamingHandlers(self._pods, self._runtime, self._limits)
        lists = PodLists(self._pods, self._runtime)
        router = app.router
        router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs.serve)
        for name, handler in (("exec", streams.exec), ("attach", streams.attach)):
            _add_stream(router, name, "/{container}", handler, get=True)
        _add_stream(router, "run", "/{container}", streams.run, get=False)
        _add_stream(router, "portForward", "", streams.port_forward, get=True)
        router.add_get("/pods", lists.pods)
        router.add_get("/runningpods/", lists.running_pods)
        return app

    def _add_figures(self, app: web.Application, metrics: NodeMetrics) -> None:
        stats = StatsHandlers(
            self._settings.node_name, self._pods, self._runtime, self._usage, self._start_ns
        )
        pages = ZPages(self._settings, self._clock, self._start_ns)
        router = app.router
        router.add_get("/stats/summary", stats.summary)
        router.add_post("/stats/summary", stats.summary)
        router.add_get("/metrics", metrics.metrics)
        router.add_get("/metrics/probes", metrics.probes)
        router.add_get("/metrics/slis", metrics.slis)
        router.add_get("/metrics/resource", stats.resource)
        router.add_get("/metrics/cadvisor", stats.cadvisor)
        router.add_get("/configz", pages.configz)
        router.add_get("/flagz", pages.flagz)
        router.add_get("/statusz", pages.statusz)
        router.add_get("/logs/{path:.*}", pages.logs)

    def _plain_application(self) -> web.Application:
        app = web.Application()
        self._add_health(app)
        return app

    def _add_health(self, app: web.Application) -> None:
        app.router.add_get("/healthz", self._health.all)
        app.router.add_get("/healthz/{check}", self._health.one)


def _add_stream(
    router: web.UrlDispatcher, name: str, tail: str, handler: Handler, *, get: bool
) -> None:
    for path in (
        f"/{name}/{{namespace}}/{{pod}}{tail}",
        f"/{name}/{{namespace}}/{{pod}}/{{uid}}{tail}",
    ):
        if get:
            router.add_get(path, handler, allow_head=False)
        router.add_post(path, handler)


def _runner(app: web.Application) -> web.AppRunner:
    # A handler whose client is gone is cancelled: that is what ends an exec with its client.
    return web.AppRunner(
        app,
        handle_signals=False,
        access_log=None,
        keepalive_timeout=_KEEP_ALIVE_S,
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_S,
    )


async def _listen(
    runner: web.AppRunner, host: str, port: int, context: ssl.SSLContext | None
) -> None:
    try:
        await web.TCPSite(runner, host, port, ssl_context=context).start()
    except OSError as exc:
        raise Unavailable(
            f"The kubelet's API can't listen on {host}:{port}: {exc.strerror}; choose another "
            "port or address, or end what listens there"
        ) from exc
    log.info("listening", address=host, port=port, tls=context is not None)
