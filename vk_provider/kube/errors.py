"""What the API server refused, as the kinds of error that the other rooms act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vk_provider.common.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    Invalid,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    VkError,
)


class ApiError(VkError):
    """An answer of the API server other than success; always of one of the common kinds too.

    `status` is the HTTP status, `reason` and `details` are those of the metav1.Status that the
    server sent ("" and {} where it sent none), `retry_after_s` is what it asked to wait, or None.
    """

    def __init__(
        self,
        sentence: str,
        *,
        status: int = 0,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.details: Mapping[str, Any] = details or {}
        self.retry_after_s = retry_after_s


class ApiInvalid(ApiError, Invalid):
    """400, 405, 406, 413, 415, 422: the request can never work as it is."""


class ApiUnauthenticated(ApiError, Unauthenticated):
    """401: the credentials are wrong or have expired."""


class ApiPermissionDenied(ApiError, PermissionDenied):
    """403: who is asking is known and may not."""


class ApiNotFound(ApiError, NotFound):
    """404."""


class ApiConflict(ApiError, Conflict):
    """409: the object changed meanwhile, or a precondition (a UID) does not hold."""


class ApiAlreadyExists(ApiError, AlreadyExists):
    """409 with reason AlreadyExists."""


class Gone(ApiError, FailedPrecondition):
    """410: the resourceVersion is no longer kept; list again."""


class ApiTimeout(ApiError, DeadlineExceeded):
    """504, or 500 with reason Timeout: whether it took effect is unknown."""


class ApiUnavailable(ApiError, Unavailable):
    """429 and 5xx: try again, after `retry_after_s` where the server said so."""


class ApiInternal(ApiError, Internal):
    """An answer that breaks the contract."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: ApiInvalid,
    401: ApiUnauthenticated,
    403: ApiPermissionDenied,
    404: ApiNotFound,
    405: ApiInvalid,
    406: ApiInvalid,
    409: ApiConflict,
    410: Gone,
    413: ApiInvalid,
    415: ApiInvalid,
    422: ApiInvalid,
    429: ApiUnavailable,
    504: ApiTimeout,
}


def from_status(
    tried: str, status: int, body: Mapping[str, Any], retry_after_s: float | None = None
) -> ApiError:
    """Return the error for an answer; `tried` is the request in words, `body` a metav1.Status."""
    reason = str(body.get("reason") or "")
    message = str(body.get("message") or f"HTTP status {status}")
    if reason == "AlreadyExists":
        kind: type[ApiError] = ApiAlreadyExists
    elif reason == "Expired":
        kind = Gone
    else:
        kind = _BY_STATUS.get(status, ApiUnavailable if status >= 500 else ApiInternal)
    details = body.get("details")
    return kind(
        f"{tried} failed: {message}",
        status=status,
        reason=reason,
        details=details if isinstance(details, dict) else {},
        retry_after_s=retry_after_s,
    )
