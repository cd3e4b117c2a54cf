"""The fake runtime's streams: exec and logs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import Clock
from vk_provider.runtime.fake_records import Executed, FakeContainer

_NOT_FOUND = 127


async def answer_exec(
    container: FakeContainer,
    start: pb.ExecStart,
    requests: AsyncIterator[pb.ExecRequest],
    clock: Clock,
) -> AsyncGenerator[pb.ExecResponse, None]:
    """Play a command. `cat` gives its stdin back; others are those that the program knows."""
    command = tuple(start.command)
    if command == ("cat",) and start.stdin:
        yield pb.ExecResponse(started=True)
        async for request in requests:
            match request.WhichOneof("message"):
                case "stdin":
                    yield pb.ExecResponse(stdout=request.stdin)
                case "stdin_eof":
                    break
        yield pb.ExecResponse(exit=pb.ExecExit(code=0))
        return
    known = container.program.execs.get(command)
    if known is None:
        error = f'exec: "{command[0]}": executable file not found in $PATH'
        yield pb.ExecResponse(exit=pb.ExecExit(code=_NOT_FOUND, error=error))
        return
    yield pb.ExecResponse(started=True)
    async for response in _play(known, start, clock):
        yield response


async def _play(
    known: Executed, start: pb.ExecStart, clock: Clock
) -> AsyncGenerator[pb.ExecResponse, None]:
    if start.timeout_s and known.run_s > start.timeout_s:
        await clock.sleep(start.timeout_s)
        yield pb.ExecResponse(exit=pb.ExecExit(code=137, timed_out=True))
        return
    if known.run_s:
        await clock.sleep(known.run_s)
    if known.stdout and start.stdout:
        yield pb.ExecResponse(stdout=known.stdout)
    if known.stderr and start.stderr:
        yield pb.ExecResponse(stderr=known.stderr)
    yield pb.ExecResponse(exit=pb.ExecExit(code=known.code))


def log_bytes(container: FakeContainer, request: pb.ReadLogsRequest | None = None) -> bytes:
    """Return what a container has written, cut to what was asked for."""
    request = request or pb.ReadLogsRequest()
    chunks = [data for at, data in container.log if at >= request.since_time_ns]
    lines = b"".join(chunks).splitlines(keepends=True)
    if request.HasField("tail_lines"):
        lines = lines[-request.tail_lines :] if request.tail_lines else []
    data = b"".join(lines)
    return data[: request.limit_bytes] if request.HasField("limit_bytes") else data
