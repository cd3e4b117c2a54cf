"""Exec, attach and port-forward: relays between a caller and a guest.

One message is under way in each direction, and the next is read when it was taken: gRPC's flow
control reaches from the client of a stream to the process in the guest, and nothing piles up
here. A caller that goes away ends the guest's call, and the guest kills what ran for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc.aio

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.context import Context
from vk_provider.agent.guest_calls import told_as_errors
from vk_provider.agent.guest_words import guest_words
from vk_provider.agent.sandbox import Container
from vk_provider.agent.together import together
from vk_provider.common.errors import FailedPrecondition, Invalid

_MAX_PORT = 65535
_TIMED_OUT = 124


class CallerStream(Protocol):
    """The server's end of a bidirectional call (grpc.aio.ServicerContext)."""

    async def read(self) -> Any: ...
    async def write(self, message: Any) -> None: ...


class _WholeWrites:
    """A caller to whom each message goes out whole before the next, whoever is cancelled.

    A cancelled write is still gRPC's, which refuses the next one while it is.
    """

    def __init__(self, caller: CallerStream, group: asyncio.TaskGroup) -> None:
        """`group` owns the writes, and outlives whoever waits for them."""
        self._caller = caller
        self._group = group
        self._last: asyncio.Task[None] | None = None

    async def read(self) -> Any:
        return await self._caller.read()

    async def write(self, message: Any) -> None:
        if self._last is not None and not self._last.done():
            await asyncio.wait({self._last})
        self._last = self._group.create_task(self._caller.write(message), name="answer")
        await asyncio.shield(self._last)


async def exec_stream(context: Context, caller: CallerStream) -> None:
    """Run a command in a container. Raises NotFound, Invalid, FailedPrecondition, Unavailable."""
    first = await _first(caller, pb.ExecRequest)
    start: pb.ExecStart = first.start
    container = _running(context, start.container_id)
    if not start.command:
        raise Invalid("there is no command to execute")
    begin = guest_pb2.ExecInput(
        start=guest_pb2.ExecStart(
            container_id=container.id,
            args=start.command,
            stdin=start.stdin,
            tty=start.tty,
        )
    )
    call = container.sandbox.guest().bulk.Exec()

    async def down() -> None:
        async for answer in call:
            await _exec_answer(caller, start, answer)
            if answer.WhichOneof("message") == "exit":
                return

    async with together() as writes:
        caller = _WholeWrites(caller, writes)
        try:
            async with asyncio.timeout(start.timeout_s or None):
                what = f"executing {start.command[0]!r}"
                await _relay(call, begin, caller, _exec_input, down, what)
        except TimeoutError:
            await caller.write(pb.ExecResponse(exit=pb.ExecExit(code=_TIMED_OUT, timed_out=True)))


async def attach_stream(context: Context, caller: CallerStream) -> None:
    """Take part in a container's stdio."""
    first = await _first(caller, pb.AttachRequest)
    start: pb.AttachStart = first.start
    container = _running(context, start.container_id)
    if start.stdin and not container.record.stdin:
        raise FailedPrecondition(
            f"container {container.record.status.name!r} has no stdin; set stdin in its spec"
        )
    call = container.sandbox.guest().bulk.Attach()

    async def down() -> None:
        async for answer in call:
            match answer.WhichOneof("message"):
                case "stdout" if start.stdout:
                    await caller.write(pb.AttachResponse(stdout=answer.stdout))
                case "stderr" if start.stderr:
                    await caller.write(pb.AttachResponse(stderr=answer.stderr))
                case "started":
                    await caller.write(pb.AttachResponse(started=True))

    begin = guest_pb2.AttachInput(container_id=container.id)
    await _relay(call, begin, caller, _attach_input, down, "attaching")


async def port_forward_stream(context: Context, caller: CallerStream) -> None:
    """Open one connection to a port of a sandbox."""
    first = await _first(caller, pb.PortForwardRequest)
    start: pb.PortForwardStart = first.start
    if not 1 <= start.port <= _MAX_PORT:
        raise Invalid(f"{start.port} is no port (1 to {_MAX_PORT})")
    call = context.sandbox(start.sandbox_id).guest().bulk.PortForward()

    async def down() -> None:
        async for answer in call:
            match answer.WhichOneof("message"):
                case "data":
                    await caller.write(pb.PortForwardResponse(data=answer.data))
                case "started":
                    await caller.write(pb.PortForwardResponse(started=True))

    begin = guest_pb2.PortForwardInput(port=start.port)
    await _relay(call, begin, caller, _forward_input, down, f"connecting to port {start.port}")


async def _relay(
    call: Any,
    begin: Any,
    caller: CallerStream,
    translate: Callable[[Any], Any],
    down: Callable[[], Awaitable[None]],
    tried: str,
) -> None:
    """Carry messages both ways until the guest's side ends.

    A caller that has said all it had to say half-closes the guest's stream.
    """

    async def up() -> None:
        while True:
            request = await caller.read()
            if request is grpc.aio.EOF:
                await call.done_writing()
                return
            message = translate(request)
            if message is not None:
                await call.write(message)

    async def guarded_up() -> None:
        try:
            await up()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The guest's side has ended; how is told by its answers.
            return

    try:
        with told_as_errors(tried):
            await call.write(begin)
            async with together() as group:
                upward = group.create_task(guarded_up(), name=f"{tried}: input")
                with told_as_errors(tried):
                    await down()
                upward.cancel()
    finally:
        call.cancel()


async def _exec_answer(
    caller: CallerStream, start: pb.ExecStart, answer: guest_pb2.ExecOutput
) -> None:
    match answer.WhichOneof("message"):
        case "stdout" if start.stdout:
            await caller.write(pb.ExecResponse(stdout=answer.stdout))
        case "stderr" if start.stderr:
            await caller.write(pb.ExecResponse(stderr=answer.stderr))
        case "started":
            await caller.write(pb.ExecResponse(started=True))
        case "exit":
            ended = pb.ExecExit(code=answer.exit.code, error=guest_words(answer.exit.error))
            await caller.write(pb.ExecResponse(exit=ended))


def _exec_input(request: pb.ExecRequest) -> guest_pb2.ExecInput | None:
    match request.WhichOneof("message"):
        case "stdin":
            return guest_pb2.ExecInput(stdin=request.stdin)
        case "stdin_eof":
            return guest_pb2.ExecInput(stdin_eof=True)
        case "resize":
            return guest_pb2.ExecInput(resize=_size(request.resize))
    return None


def _attach_input(request: pb.AttachRequest) -> guest_pb2.AttachInput | None:
    match request.WhichOneof("message"):
        case "stdin":
            return guest_pb2.AttachInput(stdin=request.stdin)
        case "stdin_eof":
            return guest_pb2.AttachInput(stdin_eof=True)
        case "resize":
            return guest_pb2.AttachInput(resize=_size(request.resize))
    return None


def _forward_input(request: pb.PortForwardRequest) -> guest_pb2.PortForwardInput | None:
    match request.WhichOneof("message"):
        case "data":
            return guest_pb2.PortForwardInput(data=request.data)
        case "eof":
            return guest_pb2.PortForwardInput(eof=True)
    return None


def _size(size: pb.TerminalSize) -> guest_pb2.TerminalSize:
    return guest_pb2.TerminalSize(width=size.width, height=size.height)


async def _first(caller: CallerStream, kind: type[Any]) -> Any:
    first = await caller.read()
    if not isinstance(first, kind) or not first.HasField("start"):
        raise Invalid("the first message of the stream does not say what to start")
    return first


def _running(context: Context, container_id: str) -> Container:
    container = context.container(container_id)
    if not container.record.running:
        raise FailedPrecondition(f"container {container_id} does not run")
    return container
