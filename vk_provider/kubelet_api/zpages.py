"""/configz, /flagz, /statusz, and the refusal of /logs."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from vk_provider.common.clock import Clock
from vk_provider.kubelet_api.sources import KubeletApiSettings
from vk_provider.kubelet_api.stats_summary import rfc3339


class ZPages:
    """Pages about the process itself."""

    def __init__(self, settings: KubeletApiSettings, clock: Clock, start_ns: int) -> None:
        self._settings = settings
        self._clock = clock
        self._start_ns = start_ns

    async def configz(self, _: web.Request) -> web.Response:
        """Answer with the settings that a KubeletConfiguration would hold, as they are in force."""
        settings = self._settings
        config: dict[str, Any] = {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": settings.listen_address,
            "port": settings.port,
            "healthzPort": settings.healthz_port,
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True, "cacheTTL": "2m0s"},
            },
            "authorization": {
                "mode": "Webhook",
                "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
            },
            "streamingConnectionIdleTimeout": "4h0m0s",
            "enableSystemLogHandler": False,
            **settings.config,
        }
        return web.Response(
            body=orjson.dumps({"kubeletconfig": config}), content_type="application/json"
        )

    async def flagz(self, _: web.Request) -> web.Response:
        """Answer with the settings as lines of `name=value`, for people."""
        settings = self._settings
        shown = {
            "address": settings.listen_address,
            "healthz-port": settings.healthz_port,
            "node-name": settings.node_name,
            "port": settings.port,
        }
        lines = [f"{name}={value}" for name, value in sorted(shown.items())]
        return web.Response(
            text="\n".join(["vk-provider flagz (for people, may change)", *lines, ""])
        )

    async def statusz(self, _: web.Request) -> web.Response:
        """Answer how long the process has been up and what it is, for people."""
        up_s = (self._clock.now_ns() - self._start_ns) // 10**9
        lines = [
            "vk-provider statusz (for people, may change)",
            f"Started: {rfc3339(self._start_ns)}",
            f"Up: {up_s // 3600} hr {up_s // 60 % 60:02d} min {up_s % 60:02d} sec",
            f"Binary version: {self._settings.version}",
        ]
        return web.Response(text="\n".join([*lines, ""]))

    async def logs(self, _: web.Request) -> web.Response:
        """Refuse: /var/log is the host's, and the host is not the cluster's."""
        return web.Response(status=405, text="logs endpoint is disabled.\n")
