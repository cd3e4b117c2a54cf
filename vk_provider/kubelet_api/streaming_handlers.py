"""/exec, /attach, /run and /portForward: from a request to a running stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from aiohttp import web

from vk_provider.common.errors import Invalid, VkError
from vk_provider.common.logging import get_logger
from vk_provider.kubelet_api.containers import container_spec, is_running
from vk_provider.kubelet_api.exchange import ClientGone, Outputs, StreamLimits, converse
from vk_provider.kubelet_api.port_forward import PROTOCOL as PORT_FORWARD
from vk_provider.kubelet_api.port_forward import PortForwarding, connect_port
from vk_provider.kubelet_api.process_streams import (
    ATTACH_TRIED,
    EXEC_TRIED,
    attach_outputs,
    exec_outputs,
)
from vk_provider.kubelet_api.sources import PodEntry, PodSource
from vk_provider.kubelet_api.spdy_exchange import PROTOCOLS, SpdyExchange
from vk_provider.kubelet_api.spdy_link import (
    TUNNEL_PREFIX,
    ByteTransport,
    SpdyLink,
    TunnelTransport,
    UpgradedTransport,
    is_tunnel,
    negotiate_spdy,
)
from vk_provider.kubelet_api.websocket_exchange import WebSocketExchange
from vk_provider.runtime.api import Runtime
from vk_provider.runtime.exec_sync import exec_sync
from vk_provider.streaming.remotecommand import Input, StreamOptions, parse_options

_RUN_LIMIT_BYTES = 16 << 20

log = get_logger("kubelet_api.streams")

Start = Callable[[AsyncIterator[Input]], Outputs]


class StreamingHandlers:
    """Serves streams into containers. Codes and words are the kubelet's."""

    def __init__(self, pods: PodSource, runtime: Runtime, limits: StreamLimits) -> None:
        self._pods = pods
        self._runtime = runtime
        self._limits = limits

    async def exec(self, request: web.Request) -> web.StreamResponse:
        """Run a command in a container: `command` (repeated), `input`, `output`, `error`, `tty`."""
        options = _options(request)
        command = request.query.getall("command", [])
        container_id, _ = self._container(request)
        if not command:
            raise web.HTTPBadRequest(text="you must specify a command to run")
        return await self._serve(
            request,
            options,
            lambda inputs: exec_outputs(self._runtime, container_id, command, options, inputs),
            EXEC_TRIED,
        )

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """Attach to a container's main process; whether it has a terminal is in its spec."""
        options = _options(request)
        container_id, entry = self._container(request)
        spec = container_spec(entry.pod, request.match_info["container"]) or {}
        tty = bool(spec.get("tty"))
        options = replace(options, tty=tty, stderr=options.stderr and not tty)
        return await self._serve(
            request,
            options,
            lambda inputs: attach_outputs(self._runtime, container_id, options, inputs),
            ATTACH_TRIED,
        )

    async def run(self, request: web.Request) -> web.Response:
        """Run `cmd`, split at spaces, to its end and return what it wrote."""
        container_id, _ = self._container(request)
        command = request.query.get("cmd", "").split(" ")
        try:
            result = await exec_sync(
                self._runtime, container_id, command, limit_bytes=_RUN_LIMIT_BYTES
            )
        except VkError as exc:
            return web.Response(status=500, text=str(exc))
        output = result.stdout + result.stderr
        if result.error or result.code:
            why = result.error or f"exited with {result.code}"
            told = f"command '{' '.join(command)}' {why}: {output.decode(errors='replace')}"
            return web.Response(status=500, text=told)
        return web.Response(body=output, content_type="application/json")

    async def port_forward(self, request: web.Request) -> web.StreamResponse:
        """Forward connections to the pod's ports, over SPDY or SPDY in a WebSocket."""
        entry = self._entry(request)
        sandbox_id = entry.sandbox_id
        meta = entry.pod["metadata"]
        if not sandbox_id:
            raise web.HTTPInternalServerError(
                text=f'pod not found ("{meta["name"]}_{meta["namespace"]}")'
            )
        transport: ByteTransport
        upgrade = request.headers.get("Upgrade", "").lower()
        if upgrade == "websocket" and is_tunnel(request, PORT_FORWARD):
            transport = await TunnelTransport.open(request, PORT_FORWARD)
        elif upgrade.startswith("spdy/"):
            protocol = negotiate_spdy(request, (PORT_FORWARD,))
            transport = await UpgradedTransport.take_over(request, protocol)
        elif upgrade == "websocket":
            return web.Response(
                status=403,
                text=f"Ports are forwarded over the WebSocket subprotocol {TUNNEL_PREFIX}"
                f"{PORT_FORWARD} alone; use kubectl 1.31 or newer, or SPDY",
            )
        else:
            return web.Response(status=400, text="Upgrade request required")
        named = f"{meta['name']}_{meta['namespace']}, uid {meta['uid']}"
        await PortForwarding(
            SpdyLink(transport),
            lambda port, data: connect_port(self._runtime, sandbox_id, port, data),
            named,
            self._limits,
        ).run()
        await transport.close()
        return transport.response()

    async def _serve(
        self, request: web.Request, options: StreamOptions, start: Start, tried: str
    ) -> web.StreamResponse:
        upgrade = request.headers.get("Upgrade", "").lower()
        if upgrade.startswith("spdy/"):
            return await self._serve_spdy(request, options, start, tried)
        if upgrade != "websocket" or request.method != "GET":
            return web.Response(status=400, text="Upgrade request required")
        try:
            exchange = WebSocketExchange(request, options)
        except Invalid as exc:
            return web.Response(status=403, text=str(exc))
        response = await exchange.open()
        await converse(exchange, start, self._limits, tried)
        return response

    async def _serve_spdy(
        self, request: web.Request, options: StreamOptions, start: Start, tried: str
    ) -> web.StreamResponse:
        protocol = negotiate_spdy(request, PROTOCOLS)
        transport = await UpgradedTransport.take_over(request, protocol)
        exchange = SpdyExchange(SpdyLink(transport), options, protocol)
        try:
            await exchange.open(self._limits.creation_s)
        except ClientGone as exc:
            log.debug("no stream came to be", why=str(exc))
        else:
            await converse(exchange, start, self._limits, tried)
        return transport.response()

    def _entry(self, request: web.Request) -> PodEntry:
        """Return the pod that the path names; a UID, where it names one, must be the pod's."""
        place = request.match_info
        entry = self._pods.find(place["namespace"], place["pod"], place.get("uid", ""))
        if entry is None:
            raise web.HTTPNotFound(text="pod does not exist")
        return entry

    def _container(self, request: web.Request) -> tuple[str, PodEntry]:
        """Return the running container's id; what does not run is not found, with 500 as ever."""
        entry = self._entry(request)
        name = request.match_info["container"]
        container_id = entry.container_id(name) if is_running(entry.pod, name) else None
        if container_id is None:
            raise web.HTTPInternalServerError(text=f'container not found ("{name}")')
        return container_id, entry


def _options(request: web.Request) -> StreamOptions:
    try:
        return parse_options(request.query)
    except Invalid as exc:
        raise web.HTTPBadRequest(text=str(exc)) from exc
