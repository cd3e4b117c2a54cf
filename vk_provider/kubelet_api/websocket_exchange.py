"""A remote command's client at the other end of a WebSocket."""

from __future__ import annotations

import asyncio

from aiohttp import WSMsgType, web

from vk_provider.kubelet_api.exchange import ClientGone
from vk_provider.streaming.channels import Channel, negotiate
from vk_provider.streaming.remotecommand import Input, Status, StreamOptions
from vk_provider.streaming.websocket_command import Message, WebSocketCommand

_MAX_MESSAGE_BYTES = 32 << 20  # golang.org/x/net/websocket's limit, which clients count on
_CLOSE_S = 5.0
_POLICY_VIOLATION = 1008


class WebSocketExchange:
    """Carries one exec or attach. Reads no message before the last one was taken."""

    def __init__(self, request: web.Request, options: StreamOptions) -> None:
        """Raises Invalid where none of the subprotocols that the client offers is known."""
        self._request = request
        self._protocol = negotiate(requested_protocols(request))
        self._command = WebSocketCommand(self._protocol, options)
        self._socket = web.WebSocketResponse(
            protocols=(self._protocol.name,) if self._protocol.name else (),
            compress=False,
            max_msg_size=_MAX_MESSAGE_BYTES,
            timeout=_CLOSE_S,
        )

    async def open(self) -> web.StreamResponse:
        """Answer the handshake and return what the handler must return in the end."""
        await self._socket.prepare(self._request)
        await self._send(self._command.opening())
        return self._socket

    async def receive(self) -> list[Input]:
        """Return what the next message means; raises ClientGone at the end, Invalid for nonsense.

        Pings are answered while this waits.
        """
        message = await self._socket.receive()
        match message.type:
            case WSMsgType.BINARY | WSMsgType.TEXT:
                return self._command.receive(message.data)
            case WSMsgType.ERROR:
                raise ClientGone(f"The WebSocket broke: {message.data}")
        raise ClientGone("The client closed the WebSocket")

    async def keep_alive(self) -> None:
        """Say that this end lives though nothing is read: pings behind unread input go unanswered.

        client-go lets a connection die after 61 s without a pong; RFC 6455, 5.5.3 allows pongs
        that answer no ping.
        """
        await self._guarded(self._socket.pong())

    async def send(self, channel: Channel, data: bytes) -> None:
        """Send what the process wrote; waits while the client is slow to read."""
        message = self._command.output(channel, data)
        if message is not None:
            await self._send(message)

    async def finish(self, status: Status) -> None:
        """Send the outcome and close; waits a few seconds at most for the client's own close."""
        message = self._command.finish(status)
        if message is not None:
            await self._send(message)
        await self._socket.close()

    async def _send(self, message: Message) -> None:
        if isinstance(message, str):
            await self._guarded(self._socket.send_str(message))
        else:
            await self._guarded(self._socket.send_bytes(message))

    async def _guarded(self, sending: asyncio.Future[None] | object) -> None:
        try:
            await sending  # type: ignore[misc]
        except (ConnectionError, RuntimeError) as exc:
            raise ClientGone(f"The WebSocket is closed: {exc}") from exc


def requested_protocols(request: web.Request) -> list[str]:
    """Return the subprotocols that a handshake offers, in the client's order."""
    headers = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [name.strip() for header in headers for name in header.split(",") if name.strip()]
