"""The CRI log format, written and read; bytes in, bytes out.

A line is `TIMESTAMP STREAM TAG CONTENT\n`: an RFC 3339 timestamp, `stdout` or `stderr`, and
the tag F for a full line or P for a piece of one that goes on. The timestamps written here
have nine decimals always, so that the header has one length (`HEADER_BYTES`) and whole blocks
can be handled by slicing.
"""

from __future__ import annotations

import time
from functools import lru_cache

from vk_provider._pb.guest_pb2 import OutputRecord

#: "2006-01-02T15:04:05.000000000Z"
TIMESTAMP_BYTES = 30
#: the timestamp and " stdout F "
HEADER_BYTES = TIMESTAMP_BYTES + 10
#: Longer lines are written in pieces, as other CRI runtimes do.
MAX_CONTENT_BYTES = 16 * 1024

_LAST_NS = 253_402_300_799_999_999_999  # the end of the year 9999
_NEWLINE = b"\n"


@lru_cache(maxsize=64)
def _whole_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def timestamp(time_ns: int) -> bytes:
    """Return the time in RFC 3339 with nine decimals, UTC; a time out of range is moved into it."""
    second, nanosecond = divmod(min(max(time_ns, 0), _LAST_NS), 1_000_000_000)
    return b"%b.%09dZ" % (_whole_second(second).encode(), nanosecond)


def encode(record: OutputRecord) -> bytes:
    """Return an output record's log lines; empty for a record without data.

    A record may hold several lines; they share its time. Content after the last line end
    is a piece of a line when the record says `partial`, else a line whose end is implied.
    """
    data = record.data
    if not data:
        return b""
    head = timestamp(record.time_ns) + (b" stderr " if record.stderr else b" stdout ")
    full, piece = head + b"F ", head + b"P "
    if len(data) > MAX_CONTENT_BYTES:
        return _encode_long(data, full, piece if record.partial else full, piece)
    lines, end, rest = data.rpartition(_NEWLINE)
    # One pass in C over all lines: a record of nothing but line ends makes no object for each.
    written = full + lines.replace(_NEWLINE, _NEWLINE + full) + _NEWLINE if end else b""
    if rest:
        written += (piece if record.partial else full) + rest + _NEWLINE
    return written


def _encode_long(data: bytes, full: bytes, last: bytes, piece: bytes) -> bytes:
    """Encode what may have lines longer than one entry can be."""
    out: list[bytes] = []
    lines = data.split(_NEWLINE)
    rest = lines.pop()
    entries = [(full, line) for line in lines]
    if rest:
        entries.append((last, rest))
    for head, line in entries:
        start = 0
        while len(line) - start > MAX_CONTENT_BYTES:
            out += (piece, line[start : start + MAX_CONTENT_BYTES], _NEWLINE)
            start += MAX_CONTENT_BYTES
        out += (head, line[start:], _NEWLINE)
    return b"".join(out)
