"""What a reader of a log is shown: CRI lines in, the container's own bytes out.

The rules are those of the kubelet (k8s.io/cri-client/pkg/logs, `logWriter.write` and
`ReadLogs`): lines before `since` are left out; a timestamp stands before a line but not
before the later pieces of one; bytes of a stream that was not asked for do not count
against the limit; a line that crosses the limit is cut.
"""

from __future__ import annotations

from vk_provider._pb.sandbox_pb2 import ReadLogsRequest
from vk_provider.agent.logs.cri_format import HEADER_BYTES, TIMESTAMP_BYTES, timestamp
from vk_provider.common.errors import Invalid

_FULL = frozenset((b" stdout F ", b" stderr F "))
_STREAMS = {"": b"", "All": b"", "Stdout": b"stdout", "Stderr": b"stderr"}


class Renderer:
    """Turns whole CRI lines into output, for one reader.

    Raises Invalid on construction when the request asks for something impossible.
    `done` turns true when the limit of lines or bytes is reached.
    """

    def __init__(self, request: ReadLogsRequest) -> None:
        if request.stream not in _STREAMS:
            known = ", ".join(name for name in _STREAMS if name)
            raise Invalid(f"the log has no stream {request.stream!r}; there are {known}")
        if request.HasField("tail_lines") and request.tail_lines < 0:
            raise Invalid(f"tail_lines is {request.tail_lines}; it can be 0 or more")
        if request.HasField("limit_bytes") and request.limit_bytes < 0:
            raise Invalid(f"limit_bytes is {request.limit_bytes}; it can be 0 or more")
        self._stream = _STREAMS[request.stream]
        self._since = timestamp(request.since_time_ns) if request.since_time_ns > 0 else b""
        self._timestamps = request.timestamps
        self._remaining: int | None = None
        if request.HasField("limit_bytes"):
            self._remaining = request.limit_bytes
        # While following, tail_lines only says where to begin.
        limited = request.HasField("tail_lines") and not request.follow
        self._lines_left: int | None = request.tail_lines if limited else None
        self._at_line_start = True
        self.done = self._lines_left == 0 or self._remaining == 0
        self._plain = not (self._stream or self._since or self._timestamps or limited)

    def render(self, block: bytes) -> bytes:
        """Return what is shown of a block of whole lines (it is empty or ends at a line end)."""
        if not block or self.done:
            return b""
        lines = block.split(b"\n")
        lines.pop()
        if self._plain and {line[TIMESTAMP_BYTES:HEADER_BYTES] for line in lines} <= _FULL:
            shown = [line[HEADER_BYTES:] for line in lines]
            shown.append(b"")
            self._at_line_start = True
            return self._cut(b"\n".join(shown))
        return self._render_each(lines)

    def _render_each(self, lines: list[bytes]) -> bytes:
        out: list[bytes] = []
        size = 0
        for line in lines:
            if self._lines_left == 0:
                self.done = True
                break
            header = line[TIMESTAMP_BYTES:HEADER_BYTES]
            stream, tag = header[1:7], header[7:]
            if stream not in (b"stdout", b"stderr") or tag not in (b" F ", b" P "):
                continue  # not written by us, or damaged: as the kubelet, skip what is no log line
            content = line[HEADER_BYTES:] if tag == b" P " else line[HEADER_BYTES:] + b"\n"
            if line[:TIMESTAMP_BYTES] >= self._since and self._stream in (b"", stream):
                if self._timestamps and self._at_line_start:
                    content = line[: TIMESTAMP_BYTES + 1] + content
                out.append(content)
                size += len(content)
                if self._remaining is not None and size >= self._remaining:
                    break
            if self._lines_left is not None:
                self._lines_left -= 1
            self._at_line_start = tag == b" F "
        if self._lines_left == 0:
            self.done = True
        return self._cut(b"".join(out))

    def _cut(self, shown: bytes) -> bytes:
        if self._remaining is None:
            return shown
        shown = shown[: self._remaining]
        self._remaining -= len(shown)
        if self._remaining == 0:
            self.done = True
        return shown
