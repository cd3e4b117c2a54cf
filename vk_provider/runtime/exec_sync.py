"""Run one command to its end and keep a bounded part of what it said: for probes and hooks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import DeadlineExceeded, Unavailable
from vk_provider.runtime.api import Runtime


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended. `code` is 126 or 127 with `error` set where it could not be started."""

    stdout: bytes
    stderr: bytes
    code: int
    error: str = ""


async def exec_sync(
    runtime: Runtime,
    container_id: str,
    command: Sequence[str],
    timeout_s: float = 0,
    limit_bytes: int = 16 * 1024,
) -> ExecResult:
    """Run `command` without stdin or tty and return its end.

    Output beyond `limit_bytes`, counted for each stream, is read and dropped. `timeout_s` 0 means
    none; past it the runtime kills the process and this raises `DeadlineExceeded`. Raises
    `Unavailable` where the stream ends without an outcome. Cancelling it ends the command.
    """
    start = pb.ExecStart(
        container_id=container_id,
        command=command,
        stdout=True,
        stderr=True,
        timeout_s=timeout_s,
    )

    async def requests() -> AsyncIterator[pb.ExecRequest]:
        yield pb.ExecRequest(start=start)

    stdout, stderr = bytearray(), bytearray()
    async with aclosing(runtime.exec(requests())) as responses:
        async for response in responses:
            match response.WhichOneof("message"):
                case "stdout":
                    stdout += response.stdout[: limit_bytes - len(stdout)]
                case "stderr":
                    stderr += response.stderr[: limit_bytes - len(stderr)]
                case "exit":
                    if response.exit.timed_out:
                        raise DeadlineExceeded(
                            f"command {command[0]!r} timed out after {timeout_s:g} s"
                        )
                    return ExecResult(
                        bytes(stdout), bytes(stderr), response.exit.code, response.exit.error
                    )
    raise Unavailable(
        f"the runtime ended the stream of {command[0]!r} in container {container_id} "
        "without its outcome; try again"
    )
