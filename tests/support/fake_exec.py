"""The part of a runtime that runs commands and reads logs, as a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import VkError
from vk_provider.runtime.api import Runtime


class FakeExec:
    """Answers each command with the next outcome; the last one is repeated."""

    def __init__(self) -> None:
        self.outcomes: list[pb.ExecExit | VkError] = [pb.ExecExit(code=0)]
        self.stdout = b""
        self.stderr = b""
        self.log: list[bytes] | VkError = []
        self.commands: list[list[str]] = []
        self.cancelled = 0
        self.hold: asyncio.Event | None = None

    @property
    def runtime(self) -> Runtime:
        return cast("Runtime", self)

    async def exec(
        self, requests: AsyncIterator[pb.ExecRequest]
    ) -> AsyncGenerator[pb.ExecResponse, None]:
        start = (await anext(requests)).start
        self.commands.append(list(start.command))
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, VkError):
            raise outcome
        yield pb.ExecResponse(started=True)
        yield pb.ExecResponse(stdout=self.stdout)
        yield pb.ExecResponse(stderr=self.stderr)
        yield pb.ExecResponse(exit=outcome)

    async def read_logs(self, request: pb.ReadLogsRequest) -> AsyncGenerator[bytes, None]:
        assert request.tail_lines == 80
        if isinstance(self.log, VkError):
            raise self.log
        for chunk in self.log:
            yield chunk
