"""Exec and attach in the runtime's messages, as an exchange wants them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.kubelet_api.exchange import Outputs, Written
from vk_provider.runtime.api import Runtime
from vk_provider.streaming.channels import Channel
from vk_provider.streaming.remotecommand import (
    Input,
    Resize,
    Stdin,
    StdinClosed,
    StreamOptions,
    exited,
    failed,
    succeeded,
)

EXEC_TRIED = "error executing command in container"
ATTACH_TRIED = "error attaching to container"


async def exec_outputs(
    runtime: Runtime,
    container_id: str,
    command: list[str],
    options: StreamOptions,
    inputs: AsyncIterator[Input],
) -> Outputs:
    """Run a command and yield what it writes and, last, its outcome."""
    start = pb.ExecStart(
        container_id=container_id,
        command=command,
        tty=options.tty,
        stdin=options.stdin,
        stdout=options.stdout,
        stderr=options.stderr,
    )

    async def requests() -> AsyncIterator[pb.ExecRequest]:
        yield pb.ExecRequest(start=start)
        async for item in inputs:
            match item:
                case Stdin(data):
                    yield pb.ExecRequest(stdin=data)
                case StdinClosed():
                    yield pb.ExecRequest(stdin_eof=True)
                case Resize(width, height):
                    yield pb.ExecRequest(resize=pb.TerminalSize(width=width, height=height))

    async with aclosing(runtime.exec(requests())) as responses:
        async for response in responses:
            match response.WhichOneof("message"):
                case "stdout":
                    yield Written(Channel.STDOUT, response.stdout)
                case "stderr":
                    yield Written(Channel.STDERR, response.stderr)
                case "exit":
                    if response.exit.error:
                        yield failed(f"{EXEC_TRIED}: {response.exit.error}")
                    else:
                        yield exited(response.exit.code) if response.exit.code else succeeded()
                    return


async def attach_outputs(
    runtime: Runtime, container_id: str, options: StreamOptions, inputs: AsyncIterator[Input]
) -> Outputs:
    """Take part in a container's stdio; its end is a success, whatever its exit code."""
    start = pb.AttachStart(
        container_id=container_id,
        stdin=options.stdin,
        stdout=options.stdout,
        stderr=options.stderr,
    )

    async def requests() -> AsyncIterator[pb.AttachRequest]:
        yield pb.AttachRequest(start=start)
        async for item in inputs:
            match item:
                case Stdin(data):
                    yield pb.AttachRequest(stdin=data)
                case StdinClosed():
                    yield pb.AttachRequest(stdin_eof=True)
                case Resize(width, height):
                    yield pb.AttachRequest(resize=pb.TerminalSize(width=width, height=height))

    async with aclosing(runtime.attach(requests())) as responses:
        async for response in responses:
            match response.WhichOneof("message"):
                case "stdout":
                    yield Written(Channel.STDOUT, response.stdout)
                case "stderr":
                    yield Written(Channel.STDERR, response.stderr)
    yield succeeded()
