"""Port-forward: many connections to one pod over one SPDY connection.

Each connection is a pair of streams, `data` and `error`, that carry the same `requestID`
(`k8s.io/cri-streaming/pkg/streaming/portforward/httpstream.go`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger
from vk_provider.kubelet_api.exchange import ClientGone, StreamLimits
from vk_provider.kubelet_api.spdy_link import SpdyLink
from vk_provider.runtime.api import Runtime
from vk_provider.streaming.spdy_connection import (
    SpdyEvent,
    StreamData,
    StreamEnded,
    StreamOpened,
    StreamReset,
)

PROTOCOL = "portforward.k8s.io"
_MAX_UNREAD_BYTES = 4 << 20  # of all connections together: more, and the client has to wait
_MAX_PORT = 65535
_PIECE_BYTES = 64 * 1024

Connect = Callable[[int, AsyncIterator[bytes]], AsyncGenerator[bytes, None]]

log = get_logger("kubelet_api.port_forward")


async def connect_port(
    runtime: Runtime, sandbox_id: str, port: int, data: AsyncIterator[bytes]
) -> AsyncGenerator[bytes, None]:
    """Open a connection to a port of a sandbox, send `data`, yield what comes back."""

    async def requests() -> AsyncIterator[pb.PortForwardRequest]:
        yield pb.PortForwardRequest(start=pb.PortForwardStart(sandbox_id=sandbox_id, port=port))
        async for chunk in data:
            for at in range(0, len(chunk), _PIECE_BYTES):
                yield pb.PortForwardRequest(data=chunk[at : at + _PIECE_BYTES])
        yield pb.PortForwardRequest(eof=True)

    async with aclosing(runtime.port_forward(requests())) as responses:
        async for response in responses:
            if response.WhichOneof("message") == "data":
                yield response.data


@dataclass(eq=False)
class _Pair:
    """One forwarded connection in the making, or made."""

    name: str
    port: int
    streams: dict[str, int] = field(default_factory=dict)
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    inbox: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None


class PortForwarding:
    """Serves one client's port-forward; `pod` names the pod in messages."""

    def __init__(self, link: SpdyLink, connect: Connect, pod: str, limits: StreamLimits) -> None:
        self._link = link
        self._connect = connect
        self._pod = pod
        self._limits = limits
        self._pairs: dict[str, _Pair] = {}
        self._by_stream: dict[int, _Pair] = {}
        self._unread = 0
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Forward until the client goes; then all connections end."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.idle_s) as idle, asyncio.TaskGroup() as group:
                while True:
                    events = await self._link.receive()
                    idle.reschedule(loop.time() + self._limits.idle_s)
                    for event in events:
                        self._event(event, group)
                    await self._link.flush()
                    while self._unread > _MAX_UNREAD_BYTES:
                        self._room.clear()
                        await self._room.wait()
        except TimeoutError:
            log.info("port-forward was idle for too long", pod=self._pod)
            await self._link.close()
        except BaseExceptionGroup as failures:
            gone, rest = failures.split(ClientGone)
            if gone is None or rest is not None:
                raise

    def _event(self, event: SpdyEvent, group: asyncio.TaskGroup) -> None:
        match event:
            case StreamOpened():
                self._opened(event, group)
            case StreamData(stream_id, data):
                pair = self._by_stream.get(stream_id)
                if pair is not None and pair.streams.get("data") == stream_id:
                    self._unread += len(data)
                    pair.inbox.put_nowait(data)
            case StreamEnded(stream_id):
                pair = self._by_stream.get(stream_id)
                if pair is not None and pair.streams.get("data") == stream_id:
                    pair.inbox.put_nowait(None)
            case StreamReset(stream_id):
                pair = self._by_stream.get(stream_id)
                if pair is not None and pair.task is not None:
                    pair.task.cancel()

    def _opened(self, event: StreamOpened, group: asyncio.TaskGroup) -> None:
        kind, port = event.headers.get("streamtype", ""), _port(event.headers.get("port", ""))
        if kind not in {"data", "error"} or port is None:
            self._link.connection.reset(event.stream_id)
            return
        name = event.headers.get("requestid") or _implied_id(kind, event.stream_id)
        pair = self._pairs.get(name)
        if pair is None:
            pair = self._pairs[name] = _Pair(name, port)
            pair.task = group.create_task(self._serve(pair), name=f"port-forward {name}")
        elif kind in pair.streams or pair.port != port:
            self._link.connection.reset(event.stream_id)
            return
        pair.streams[kind] = event.stream_id
        self._by_stream[event.stream_id] = pair
        self._link.connection.accept(event.stream_id)
        if len(pair.streams) == 2:
            pair.complete.set()

    async def _serve(self, pair: _Pair) -> None:
        try:
            error = await self._forward(pair)
            await self._end(pair, error)
        finally:
            self._forget(pair)

    async def _forward(self, pair: _Pair) -> str:
        """Carry one connection to its end; return why it failed, "" for a good end."""
        try:
            async with asyncio.timeout(self._limits.creation_s):
                await pair.complete.wait()
        except TimeoutError:
            return f"(request={pair.name}) timed out waiting for streams"
        connection, data_id = self._link.connection, pair.streams["data"]
        try:
            async with aclosing(self._connect(pair.port, self._input(pair))) as chunks:
                async for chunk in chunks:
                    if not connection.is_open(data_id):
                        break
                    connection.send(data_id, chunk)
                    await self._link.flush()
        except VkError as exc:
            return f"error forwarding port {pair.port} to pod {self._pod}: {exc}"
        return ""

    async def _end(self, pair: _Pair, error: str) -> None:
        connection = self._link.connection
        error_id, data_id = pair.streams.get("error"), pair.streams.get("data")
        if error_id is not None:
            if error and connection.is_open(error_id):
                connection.send(error_id, error.encode())
            connection.end(error_id)
        if data_id is not None:
            if error:
                connection.reset(data_id)
            else:
                connection.end(data_id)
        await self._link.flush()

    async def _input(self, pair: _Pair) -> AsyncGenerator[bytes, None]:
        while (data := await pair.inbox.get()) is not None:
            self._taken(len(data))
            yield data

    def _taken(self, count: int) -> None:
        self._unread -= count
        self._room.set()

    def _forget(self, pair: _Pair) -> None:
        """Free what the pair holds; what it never read no longer counts."""
        while not pair.inbox.empty():
            self._taken(len(pair.inbox.get_nowait() or b""))
        pair.inbox.put_nowait(None)
        for kind, stream_id in pair.streams.items():
            self._by_stream.pop(stream_id, None)
            if kind == "data" and self._link.connection.is_open(stream_id):
                self._link.connection.reset(stream_id)
            self._link.connection.end(stream_id)
        self._pairs.pop(pair.name, None)


def _port(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        return None
    return int(text) if 1 <= int(text) <= _MAX_PORT else None


def _implied_id(kind: str, stream_id: int) -> str:
    """Clients from before `requestID` open the error stream, and the data stream right after it."""
    return str(stream_id if kind == "error" else stream_id - 2)
