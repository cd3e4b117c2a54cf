"""One exec or attach between a client and the runtime, whatever carries it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from vk_provider.common.errors import Invalid, VkError
from vk_provider.common.logging import get_logger
from vk_provider.streaming.channels import Channel
from vk_provider.streaming.remotecommand import Input, Status, Stdin, failed

_PIECE_BYTES = 64 * 1024

log = get_logger("kubelet_api.exchange")


class ClientGone(Exception):
    """The client has left; nobody waits for an outcome."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Times of a stream, in seconds: idle at most, creating its parts, between signs of life."""

    idle_s: float = 4 * 3600.0
    creation_s: float = 30.0
    keep_alive_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes that the process wrote."""

    channel: Channel
    data: bytes


Outputs = AsyncGenerator[Written | Status, None]


class Exchange(Protocol):
    """The client's end."""

    async def receive(self) -> list[Input]:
        """Return what came next; raises ClientGone at the end, Invalid for nonsense."""
        ...

    async def keep_alive(self) -> None:
        """Give a sign of life while input waits to be taken."""
        ...

    async def send(self, channel: Channel, data: bytes) -> None:
        """Send what the process wrote; waits while the client is slow. Raises ClientGone."""
        ...

    async def finish(self, status: Status) -> None:
        """Send the outcome and close. Raises ClientGone."""
        ...


class Inbox:
    """Hands input from one task to another, a piece at a time, until it is closed."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[Input | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(1)

    async def put(self, item: Input) -> None:
        """Hand on a piece once the one before was taken."""
        await self._room.acquire()
        self._items.put_nowait(item)

    def close(self) -> None:
        """End the iteration after what was put."""
        self._items.put_nowait(None)

    async def __aiter__(self) -> AsyncGenerator[Input, None]:
        while (item := await self._items.get()) is not None:
            self._room.release()
            yield item


async def converse(
    exchange: Exchange,
    start: Callable[[AsyncIterator[Input]], Outputs],
    limits: StreamLimits,
    tried: str,
) -> None:
    """Carry input and output both ways until the process has ended or the client has gone.

    `start` is given the client's input and yields what the process writes and, last, its outcome;
    closing it ends the process. An error on the runtime's side is the outcome `tried: …`.
    Nothing is read from one side faster than the other takes it. Cancelling ends the process.
    """
    try:
        status = await _converse(exchange, start, limits, tried)
        await exchange.finish(status)
    except ClientGone as exc:
        log.debug("client gone", tried=tried, why=str(exc))


async def _converse(
    exchange: Exchange,
    start: Callable[[AsyncIterator[Input]], Outputs],
    limits: StreamLimits,
    tried: str,
) -> Status:
    inbox = Inbox()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limits.idle_s) as idle:

            def touch() -> None:
                idle.reschedule(loop.time() + limits.idle_s)

            async with asyncio.TaskGroup() as group:
                reading = group.create_task(_read(exchange, inbox, limits, touch), name="input")
                try:
                    return await _write(exchange, start(aiter(inbox)), touch, tried)
                finally:
                    reading.cancel()
    except TimeoutError:
        return failed(f"{tried}: nothing was said for {limits.idle_s:g} s")
    except BaseExceptionGroup as failures:
        raise_gone, rest = failures.split(ClientGone)
        if rest is None and raise_gone is not None:
            raise ClientGone(str(raise_gone.exceptions[0])) from failures
        nonsense, rest = failures.split(Invalid)
        if rest is None and nonsense is not None:
            return failed(f"{tried}: {nonsense.exceptions[0]}")
        raise
    finally:
        inbox.close()


async def _read(
    exchange: Exchange, inbox: Inbox, limits: StreamLimits, touch: Callable[[], None]
) -> None:
    while True:
        for item in await exchange.receive():
            touch()
            for piece in _pieces(item):
                await _hand_on(exchange, inbox, piece, limits.keep_alive_s)


async def _hand_on(exchange: Exchange, inbox: Inbox, item: Input, keep_alive_s: float) -> None:
    while True:
        try:
            async with asyncio.timeout(keep_alive_s):
                return await inbox.put(item)
        except TimeoutError:
            await exchange.keep_alive()


async def _write(
    exchange: Exchange, outputs: Outputs, touch: Callable[[], None], tried: str
) -> Status:
    try:
        async with aclosing(outputs):
            async for output in outputs:
                if not isinstance(output, Written):
                    return output
                touch()
                await exchange.send(output.channel, output.data)
    except VkError as exc:
        return failed(f"{tried}: {exc}")
    return failed(f"{tried}: the runtime ended the stream without an outcome; try again")


def _pieces(item: Input) -> list[Input]:
    """Cut long input, for a client's message may be longer than the runtime's."""
    if not isinstance(item, Stdin) or len(item.data) <= _PIECE_BYTES:
        return [item]
    view = item.data
    return [Stdin(view[at : at + _PIECE_BYTES]) for at in range(0, len(view), _PIECE_BYTES)]
