"""A SPDY connection over whatever carries bytes: an upgraded HTTP connection, or a WebSocket."""

from __future__ import annotations

import asyncio
from typing import Protocol

from aiohttp import WSMsgType, web

from vk_provider.common.errors import Invalid
from vk_provider.kubelet_api.exchange import ClientGone
from vk_provider.kubelet_api.websocket_exchange import requested_protocols
from vk_provider.streaming.spdy_connection import SpdyConnection, SpdyEvent

TUNNEL_PREFIX = "SPDY/3.1+"
_VERSION_HEADER = "X-Stream-Protocol-Version"
_ACCEPTED_HEADER = "X-Accepted-Stream-Protocol-Versions"
_READ_BYTES = 64 * 1024
_CLOSE_S = 5.0
_MAX_MESSAGE_BYTES = 32 << 20


class ByteTransport(Protocol):
    """A connection's bytes. Reading and writing wait; both raise ClientGone at its end."""

    async def read(self) -> bytes:
        """Return the bytes that came next, never none."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    async def close(self) -> None:
        """Close, more than once if need be."""
        ...

    def response(self) -> web.StreamResponse:
        """Return what the request's handler must return; nothing of it reaches the client."""
        ...


class SpdyLink:
    """A SPDY connection and its transport."""

    def __init__(self, transport: ByteTransport) -> None:
        self._transport = transport
        self.connection = SpdyConnection()

    async def receive(self) -> list[SpdyEvent]:
        """Return the next events; raises ClientGone, also where the peer does not speak SPDY."""
        data = await self._transport.read()
        try:
            events = self.connection.receive(data)
        except Invalid as exc:
            raise ClientGone(f"The client breaks the protocol: {exc}") from exc
        await self.flush()
        return events

    async def flush(self) -> None:
        """Send what the connection has to say; waits while the client is slow."""
        data = self.connection.data_to_send()
        if data:
            await self._transport.write(data)

    async def close(self) -> None:
        """Say good-bye, send all that is to be sent, and close."""
        self.connection.go_away()
        await self.flush()
        await self._transport.close()


class _TakenOver(asyncio.StreamReaderProtocol):
    """Reads for us, and tells the server's own protocol of the end, which cancels the handler."""

    def __init__(self, reader: asyncio.StreamReader, before: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._before = before

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._before.connection_lost(exc)


class UpgradedTransport:
    """An HTTP/1.1 connection taken over from the server after `101 Switching Protocols`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def take_over(cls, request: web.Request, protocol: str) -> UpgradedTransport:
        """Answer the request with the upgrade. From here on nothing else may write to it."""
        transport = request.transport
        if transport is None:
            raise ClientGone("The client closed the connection")
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_READ_BYTES, loop=loop)
        taken = _TakenOver(reader, transport.get_protocol())
        transport.set_protocol(taken)
        taken.connection_made(transport)
        if isinstance(transport, asyncio.ReadTransport) and not transport.is_reading():
            transport.resume_reading()
        made = cls(reader, asyncio.StreamWriter(transport, taken, reader, loop))
        head = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: SPDY/3.1"]
        if protocol:
            head.append(f"{_VERSION_HEADER}: {protocol}")
        await made.write("\r\n".join([*head, "", ""]).encode("ascii"))
        return made

    async def read(self) -> bytes:
        try:
            data = await self._reader.read(_READ_BYTES)
        except OSError as exc:
            raise ClientGone(f"The connection broke: {exc}") from exc
        if not data:
            raise ClientGone("The client closed the connection")
        return data

    async def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as exc:
            raise ClientGone(f"The connection broke: {exc}") from exc

    async def close(self) -> None:
        """Close once all is sent."""
        self._writer.close()

    def response(self) -> web.StreamResponse:
        return web.Response(status=101)


class TunnelTransport:
    """A WebSocket whose binary messages carry the bytes (KEP-4006)."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    @classmethod
    async def open(cls, request: web.Request, protocol: str) -> TunnelTransport:
        """Answer the handshake."""
        socket = web.WebSocketResponse(
            protocols=(f"{TUNNEL_PREFIX}{protocol}",),
            compress=False,
            max_msg_size=_MAX_MESSAGE_BYTES,
            timeout=_CLOSE_S,
        )
        await socket.prepare(request)
        return cls(socket)

    async def read(self) -> bytes:
        while True:
            message = await self._socket.receive()
            if message.type is not WSMsgType.BINARY:
                raise ClientGone("The client closed the WebSocket")
            if message.data:
                return bytes(message.data)

    async def write(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (ConnectionError, RuntimeError) as exc:
            raise ClientGone(f"The WebSocket is closed: {exc}") from exc

    async def close(self) -> None:
        """Close, and wait a few seconds at most for the client's own close."""
        await self._socket.close()

    def response(self) -> web.StreamResponse:
        return self._socket


def is_tunnel(request: web.Request, protocol: str) -> bool:
    """Tell whether a WebSocket handshake offers to carry this protocol over SPDY."""
    return f"{TUNNEL_PREFIX}{protocol}" in requested_protocols(request)


def negotiate_spdy(request: web.Request, supported: tuple[str, ...]) -> str:
    """Return the client's first known protocol, "" where it names none (httpstream.Handshake).

    Raises HTTPForbidden with the known ones where none is among the client's.
    """
    headers = request.headers.getall(_VERSION_HEADER, [])
    offered = [name.strip() for header in headers for name in header.split(",") if name.strip()]
    if not offered:
        return ""
    for name in offered:
        if name in supported:
            return name
    raise web.HTTPForbidden(
        headers=[(_ACCEPTED_HEADER, name) for name in supported],
        text=f"unable to upgrade: unable to negotiate protocol: client supports {offered}, "
        f"server accepts {list(supported)}",
    )
