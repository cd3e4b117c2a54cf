"""Waiting out the moment in which the API server does not know yet that a pod is ours.

The Node authorizer and NodeRestriction follow pods by watches of their own, which may be some
milliseconds behind the one that brought us the pod; until then they answer 403, or 404 for the
pod that a token is bound to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from vk_provider.common.clock import Clock
from vk_provider.kube.errors import ApiError, ApiNotFound, ApiPermissionDenied

_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
_POD_KINDS = {"pods", "pod"}  # as the storage says it, and as the listers of admission do
_T = TypeVar("_T")


async def patiently(clock: Clock, request: Callable[[], Awaitable[_T]]) -> _T:
    """Return the request's answer; a refusal that may be about our pod's newness is repeated."""
    for pause in _PAUSES_S:
        try:
            return await request()
        except ApiError as exc:
            if not _may_pass(exc):
                raise
        await clock.sleep(pause)
    return await request()


def _may_pass(exc: ApiError) -> bool:
    if isinstance(exc, ApiPermissionDenied):
        return True
    return isinstance(exc, ApiNotFound) and exc.details.get("kind") in _POD_KINDS
