"""A thin QMP client: commands, events, descriptors; no policy (QEMU's docs/interop/qmp-spec).

Lives on asyncio callbacks, so that it has no task which somebody must own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vk_provider.common.errors import Internal, Unavailable

_MAX_LINE_BYTES = 1024 * 1024
"""The longest answer is the console's ring of 64 KiB, each byte escaped by up to six."""

_CANCEL_S = 1.0
"""How long a cancelled caller waits for a command whose descriptors are on their way."""

EventHandler = Callable[[str, dict[str, Any]], None]


class QmpError(Internal):
    """QEMU refused a command; `error_class` is its kind (GenericError, DeviceNotFound, ...)."""

    def __init__(self, command: str, error_class: str, description: str) -> None:
        super().__init__(f"QEMU refused {command}: {description}")
        self.error_class = error_class


class LineSplitter:
    """Bytes in, whole lines out; holds no more than one line of bounded length."""

    def __init__(self, limit: int = _MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are complete now. Raises Internal for one above the limit."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._limit or any(len(line) > self._limit for line in lines):
            raise Internal(f"QEMU sent a QMP line of more than {self._limit} bytes")
        return lines


class QmpClient(asyncio.Protocol):
    """One connection to a QEMU's monitor. Made by `connect`; whoever made it calls `close`."""

    def __init__(self, sock: socket.socket, on_event: EventHandler) -> None:
        self._socket = sock
        self._on_event = on_event
        self._splitter = LineSplitter()
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._transport: asyncio.Transport | None = None
        self._greeting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fd_turn = asyncio.Lock()
        self._lost: Exception | None = None

    @classmethod
    async def connect(cls, path: Path, on_event: EventHandler) -> QmpClient:
        """Connect to a listening socket and negotiate; waits until QEMU answers.

        on_event gets every event's name and data, in order. Raises Unavailable when QEMU is not
        there or goes away. A caller that does not want to wait for ever sets a timeout.
        """
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await loop.sock_connect(sock, str(path))
            client = cls(sock, on_event)
            await loop.create_connection(lambda: client, sock=sock)
        except OSError as exc:
            sock.close()
            raise Unavailable(f"QEMU's monitor at {path} cannot be reached: {exc}") from exc
        except BaseException:
            sock.close()
            raise
        try:
            await client._greeting
            await client.execute("qmp_capabilities")
        except BaseException:
            client.close()
            raise
        return client

    async def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its result. Names with hyphens: see `execute_with`."""
        return await self.execute_with(command, arguments)

    async def execute_with(
        self, command: str, arguments: dict[str, Any], fds: Sequence[int] = ()
    ) -> Any:
        """Run a command with those arguments, descriptors going along; return its result.

        Raises QmpError when QEMU refuses, Unavailable when it goes away. A cancelled caller
        leaves the command to run; its answer is dropped.
        """
        if not fds:
            return _result(command, await self._send(command, arguments, ()))
        # QEMU keeps only the descriptors that came last: one such command at a time.
        async with self._fd_turn:
            answer = self._send(command, arguments, fds)
            try:
                return _result(command, await asyncio.shield(answer))
            except asyncio.CancelledError:
                await asyncio.wait([answer], timeout=_CANCEL_S)
                raise

    def post(self, command: str) -> None:
        """Send a command whose answer nobody waits for; nothing happens when QEMU is gone."""
        if self._lost is None:
            answer = self._send(command, {}, ())
            answer.add_done_callback(lambda f: None if f.cancelled() else f.exception())

    def close(self) -> None:
        """Drop the connection; QEMU goes on. Waiting callers get Unavailable."""
        if self._transport is not None:
            self._transport.abort()
        self._fail(Unavailable("the connection to QEMU's monitor was closed"))

    def _send(
        self, command: str, arguments: dict[str, Any], fds: Sequence[int]
    ) -> asyncio.Future[dict[str, Any]]:
        if self._lost is not None or self._transport is None:
            raise Unavailable(f"QEMU is gone, so {command} was not sent") from self._lost
        number = next(self._numbers)
        message: dict[str, Any] = {"execute": command, "id": number}
        if arguments:
            message["arguments"] = arguments
        data = json.dumps(message).encode() + b"\n"
        if fds:
            data = self._send_fds(data, fds)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        future.add_done_callback(lambda _: self._pending.pop(number, None))
        if data:
            self._transport.write(data)
        return future

    def _send_fds(self, data: bytes, fds: Sequence[int]) -> bytes:
        """Send the first part with the descriptors, past the transport; return what is left."""
        assert self._transport is not None
        if self._transport.get_write_buffer_size():
            raise Unavailable("QEMU does not read its monitor, so no descriptor was sent")
        try:
            sent = socket.send_fds(self._socket, [data], list(fds))
        except OSError as exc:
            raise Unavailable(f"a descriptor could not be sent to QEMU: {exc}") from exc
        return data[sent:]

    # -- asyncio.Protocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for line in self._splitter.feed(data):
                if line.strip():
                    self._take(json.loads(line))
        except (Internal, ValueError, TypeError, KeyError, AttributeError) as exc:
            self._fail(Internal(f"QEMU's monitor sent what is no QMP: {exc!r}"))
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Unavailable(f"QEMU closed its monitor{f': {exc}' if exc else ''}"))

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._on_event(str(message["event"]), message.get("data", {}))
        elif "QMP" in message:
            if not self._greeting.done():
                self._greeting.set_result(None)
        else:
            future = self._pending.get(message["id"])
            if future is not None and not future.done():
                future.set_result(message)

    def _fail(self, error: Exception) -> None:
        self._lost = self._lost or error
        if not self._greeting.done():
            self._greeting.set_exception(error)
        for future in list(self._pending.values()):
            if not future.done():
                future.set_exception(error)
        if self._greeting.done() and not self._greeting.cancelled():
            self._greeting.exception()  # nobody may be waiting for it any more


def _result(command: str, message: dict[str, Any]) -> Any:
    if "error" in message:
        error = message["error"]
        raise QmpError(command, str(error.get("class")), str(error.get("desc"))[:500])
    return message.get("return")
