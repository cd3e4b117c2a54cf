"""Kinds of error to gRPC codes for our callers, and back for what a guest answers."""

from __future__ import annotations

import grpc
import grpc.aio

from vk_provider.agent.guest_words import guest_words
from vk_provider.common import errors
from vk_provider.common.errors import VkError

_CODES: dict[type[VkError], grpc.StatusCode] = {
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Internal: grpc.StatusCode.INTERNAL,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
}
_KINDS = {code: kind for kind, code in _CODES.items()} | {
    grpc.StatusCode.CANCELLED: errors.Unavailable,
    grpc.StatusCode.OUT_OF_RANGE: errors.Invalid,
    grpc.StatusCode.UNIMPLEMENTED: errors.FailedPrecondition,
}


def status_code(error: VkError) -> grpc.StatusCode:
    """Return the code that stands for an error's kind."""
    for kind in type(error).__mro__:
        if (code := _CODES.get(kind)) is not None:
            return code
    return grpc.StatusCode.INTERNAL


def from_guest(error: grpc.aio.AioRpcError, tried: str) -> VkError:
    """Return the kind that a guest's failed answer stands for; `tried` begins the sentence."""
    words = guest_words(error.details() or "")
    kind = _KINDS.get(error.code(), errors.Internal)
    return kind(f"{tried}: the guest answered {error.code().name.lower()}: {words}")
