"""A log request's query, read and checked as the kubelet does it (v1.PodLogOptions)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from vk_provider.common.errors import Invalid

_INT = re.compile(r"[+-]?\d{1,19}")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d{1,}))?(Z|[+-]\d\d:\d\d)", re.IGNORECASE
)
_STREAMS = ("All", "Stdout", "Stderr")
_NS = 1_000_000_000


class Undecodable(Invalid):
    """A parameter is not of its type (HTTP 400); a plain Invalid is a value out of place (422)."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What to show. `since_time_ns` 0: from the beginning; None: without that limit."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since_seconds: int | None = None
    since_time_ns: int = 0
    tail_lines: int | None = None
    limit_bytes: int | None = None
    stream: str = "All"

    def since_ns(self, now_ns: int) -> int:
        """Return the time from which on to show lines, 0 for all."""
        if self.since_seconds is not None:
            return max(now_ns - self.since_seconds * _NS, 1)
        return self.since_time_ns


def parse_log_options(query: Mapping[str, str]) -> LogOptions:
    """Return the options; raises Undecodable, or Invalid (ValidatePodLogOptions)."""
    tail_name = "tailLines"
    if query.get("tail"):  # the name before v1
        tail_name = "" if query["tail"] == "all" else "tail"
    options = LogOptions(
        follow=_flag(query, "follow"),
        previous=_flag(query, "previous"),
        timestamps=_flag(query, "timestamps"),
        since_seconds=_number(query, "sinceSeconds"),
        since_time_ns=parse_time_ns(query.get("sinceTime", "")),
        tail_lines=_number(query, tail_name),
        limit_bytes=_number(query, "limitBytes"),
        stream=query.get("stream") or "All",
    )
    _check(options)
    return options


def parse_time_ns(text: str) -> int:
    """Return an RFC 3339 time in nanoseconds since the epoch, 0 for ""; raises Undecodable."""
    if not text:
        return 0
    match = _TIME.fullmatch(text)
    if match is None:
        raise Undecodable(f"{text!r} is not a time such as 2026-01-31T12:00:00Z")
    seconds, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(seconds + zone.upper().replace("Z", "+00:00"))
        whole = int(moment.timestamp())
    except (ValueError, OverflowError) as exc:
        raise Undecodable(f"{text!r} is not a time: {exc}") from exc
    return whole * _NS + int((fraction or "0")[:9].ljust(9, "0"))


def _check(options: LogOptions) -> None:
    if options.tail_lines is not None and options.tail_lines < 0:
        raise Invalid("tailLines must be greater than or equal to 0")
    if options.limit_bytes is not None and options.limit_bytes < 1:
        raise Invalid("limitBytes must be greater than 0")
    if options.since_seconds is not None:
        if options.since_time_ns:
            raise Invalid("at most one of `sinceTime` or `sinceSeconds` may be specified")
        if options.since_seconds < 1:
            raise Invalid("sinceSeconds must be greater than 0")
    if options.stream not in _STREAMS:
        raise Invalid(f"stream must be one of {', '.join(_STREAMS)}")
    if options.stream != "All" and options.tail_lines is not None:
        raise Invalid("`tailLines` and specific `stream` are mutually exclusive for now")


def _flag(query: Mapping[str, str], name: str) -> bool:
    """Absent, "false" and "0" are false, all else is true (Convert_Slice_string_To_bool)."""
    return name in query and query[name].lower() not in {"false", "0"}


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None or not name:
        return None
    if not _INT.fullmatch(text):
        raise Undecodable(f"{name} must be a number, which {text!r} is not")
    return int(text)
