"""Asking a guest agent for something, with a deadline and errors of our kinds."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import grpc.aio

from vk_provider.agent.rpc_errors import from_guest
from vk_provider.common.errors import VkError

_Answer = TypeVar("_Answer")

CALL_S = 30.0
"""What any short call may take; under emulation on a busy host they take seconds."""


class GuestMisbehaved(VkError):
    """A guest broke the contract; its VM is ended, and nothing else."""


async def ask(call: Awaitable[_Answer], tried: str) -> _Answer:
    """Await a call to a guest; `tried` says what for, as the beginning of an error's sentence."""
    try:
        return await call
    except grpc.aio.AioRpcError as exc:
        raise from_guest(exc, tried) from exc
