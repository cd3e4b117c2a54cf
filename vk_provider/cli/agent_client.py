"""The agent, for commands that ask it something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from vk_provider.common.errors import PermissionDenied, Unavailable
from vk_provider.runtime.api import Runtime
from vk_provider.runtime.grpc_client import AgentClient


@asynccontextmanager
async def open_runtime(socket: Path) -> AsyncIterator[Runtime]:
    """Yield the agent at the socket; raises Unavailable when there is none."""
    try:
        there = socket.is_socket()
    except PermissionError as exc:
        raise PermissionDenied(
            f"The agent's socket {socket} may not be reached by this user; run as root"
        ) from exc
    if not there:
        raise Unavailable(
            f"No agent listens at {socket}; start one with `vk-provider agent` (or `run`), or "
            "name its socket with --agent-socket"
        )
    async with AgentClient(f"unix:{socket}") as client:
        yield client
