"""The CRI log format, written and read; bytes in, bytes out.

A line is `TIMESTAMP STREAM TAG CONTENT\n`: an RFC 3339 timestamp, `stdout` or `stderr`, and
the tag F for a full line or P for a piece of one that goes on. The timestamps written here
have nine decimals always, so that the header has one length (`HEADER_BYTES`) and whole blocks
can be handled by slicing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
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


def encode(records: Iterable[OutputRecord]) -> bytes:
    """Return the log lines of output records.

    A record may hold several lines; they share its time. Content after the last line end
    is a piece of a line when the record says `partial`, else a line whose end is implied.
    """
    out: list[bytes] = []
    for record in records:
        if not record.data:
            continue
        head = timestamp(record.time_ns) + (b" stderr " if record.stderr else b" stdout ")
        full, piece = head + b"F ", head + b"P "
        lines = record.data.split(_NEWLINE)
        rest = lines.pop()
        for line in lines:
            if len(line) > MAX_CONTENT_BYTES:
                line = _in_pieces(out, piece, line)
            out.append(full + line)
        if rest:
            if len(rest) > MAX_CONTENT_BYTES:
                rest = _in_pieces(out, piece, rest)
            out.append((piece if record.partial else full) + rest)
    if not out:
        return b""
    out.append(b"")
    return _NEWLINE.join(out)


def _in_pieces(out: list[bytes], piece_head: bytes, line: bytes) -> bytes:
    """Append all but the last piece of a long line to `out` and return that last one."""
    start = 0
    while len(line) - start > MAX_CONTENT_BYTES:
        out.append(piece_head + line[start : start + MAX_CONTENT_BYTES])
        start += MAX_CONTENT_BYTES
    return line[start:]
