"""Asking a guest agent for something, with a deadline and errors of our kinds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc
import grpc.aio

from vk_provider.agent.rpc_errors import from_guest
from vk_provider.common.errors import Unavailable, VkError
from vk_provider.common.logging import get_logger

_log = get_logger("agent.guest")

_Answer = TypeVar("_Answer")

CALL_S = 30.0
"""What any short call may take; under emulation on a busy host they take seconds."""
_ENTROPY_BYTES = 256


class GuestMisbehaved(VkError):
    """A guest broke the contract; its VM is ended, and nothing else."""


def fresh_entropy() -> bytes:
    """Return what a guest's random numbers begin with; no two guests are given the same."""
    return os.urandom(_ENTROPY_BYTES)


def broke_off(error: grpc.aio.AioRpcError, what: str) -> None:
    """Return where a guest's stream may be taken up again; `what` names it.

    Raises GuestMisbehaved for a message larger than any that the contract allows.
    """
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        raise GuestMisbehaved(f"the guest sent {what} in a message too large") from error
    _log.debug("a stream of a guest broke off", stream=what, why=(error.details() or "")[:300])


async def ask(call: Awaitable[_Answer], tried: str) -> _Answer:
    """Await a call to a guest; `tried` says what for, as the beginning of an error's sentence."""
    with told_as_errors(tried):
        return await call


@contextmanager
def told_as_errors(tried: str) -> Iterator[None]:
    """Raise what a call to a guest fails with as an error of our kinds."""
    try:
        yield
    except grpc.aio.AioRpcError as exc:
        raise from_guest(exc, tried) from exc
    except asyncio.CancelledError:
        # A connection that is closed cancels its calls. Passed on, that would look as if whoever
        # waits for the answer had gone, and nobody would ever tell him.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Unavailable(f"{tried}: the sandbox was ended meanwhile") from None
