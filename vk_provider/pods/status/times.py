"""Times as the API writes them: RFC 3339 in UTC, whole seconds."""

from __future__ import annotations

from datetime import UTC, datetime

_NS = 1_000_000_000


def to_api(time_ns: int) -> str:
    """Render wall nanoseconds."""
    return datetime.fromtimestamp(time_ns // _NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_api(text: str) -> int:
    """Return a time of the API in wall nanoseconds."""
    return round(datetime.fromisoformat(text).timestamp()) * _NS
