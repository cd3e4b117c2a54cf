"""The kinds of error that callers act on, after gRPC's canonical codes.

Third-party exceptions are translated into these where they enter; the message is one
sentence that says what was tried, on what, why it failed and what to do about it.
"""

from __future__ import annotations


class VkError(Exception):
    """Base of all errors that cross a room's border."""


class Invalid(VkError):
    """The request can never work as it is; repeating it is useless."""


class NotFound(VkError):
    """What was named does not exist (any more)."""


class AlreadyExists(VkError):
    """The id is taken by something with other content."""


class Conflict(VkError):
    """The object changed meanwhile; read it again and decide anew."""


class FailedPrecondition(VkError):
    """Right request, wrong state: something else must happen first."""


class Exhausted(VkError):
    """No room (disk, memory, addresses); may work when some is given back."""


class Unavailable(VkError):
    """The other side is away or not ready; try again."""


class DeadlineExceeded(VkError):
    """No answer in time; whether it took effect is unknown."""


class Internal(VkError):
    """A defect, or an answer that breaks a contract."""


class Unauthenticated(VkError):
    """Who is asking could not be established."""


class PermissionDenied(VkError):
    """Who is asking is known and may not."""
