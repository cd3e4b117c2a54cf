"""Task groups whose failure is the first error itself, and not a group of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vk_provider.common.errors import VkError


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """Like TaskGroup; where tasks fail, raises one error: of our kinds before any other."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    kinds = failures.subgroup(VkError)
    error: BaseException = failures if kinds is None else kinds
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
