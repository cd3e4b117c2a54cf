"""Serves `kubectl logs`: where to begin, what to show, and waiting for more.

As the kubelet's (k8s.io/cri-client/pkg/logs): reading begins in the live file, rotated ones
are not gone back to; following goes on over rotations, through every file in between.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

from vk_provider._pb.sandbox_pb2 import ReadLogsRequest
from vk_provider.agent.logs import files
from vk_provider.agent.logs.feed import LiveLog
from vk_provider.agent.logs.render import Renderer
from vk_provider.common.errors import NotFound

#: Read, turned over and sent at a time. Larger ones cost twice the time: the heap grows and shrinks
#: for each, and its pages come anew.
BLOCK_BYTES = 128 * 1024
_TAIL_BLOCK_BYTES = 64 * 1024


async def read_logs(path: Path, request: ReadLogsRequest, live: LiveLog) -> AsyncIterator[bytes]:
    """Yield the log's content as the request wants it, in pieces of at most 128 KiB or a line.

    Without `follow` it ends at the last whole line; with it, when `live` has ended and all is
    read, or the caller stops iterating. Nothing is read ahead of the caller.

    Raises Invalid for an impossible request, NotFound when there is no log, OSError.
    """
    renderer = Renderer(request)
    tail = request.tail_lines if request.HasField("tail_lines") else None
    with closing(await asyncio.to_thread(_LogCursor.open, path, tail)) as cursor:
        while not renderer.done:
            ended = live.ended  # asked before reading, so that nothing after it is missed
            while not renderer.done:
                shown = await asyncio.to_thread(cursor.read_rendered, renderer)
                if shown is None:
                    break
                if shown:
                    yield shown
            if renderer.done or not request.follow or ended:
                return
            await live.wait_change()


def tail_start(file: BinaryIO, lines: int) -> int:
    """Return the offset of the last `lines` lines; an unfinished one at the end is not counted.

    Reads blocks from the end. The kubelet's `findTailLineStartIndex`, pieces of lines count too.
    """
    right = file.seek(0, os.SEEK_END)
    seen = 0
    while right > 0:
        left = max(0, right - _TAIL_BLOCK_BYTES)
        file.seek(left)
        block = file.read(right - left)
        count = block.count(b"\n")
        if seen + count > lines:
            # The line end before the first wanted line is in this block.
            index = len(block)
            for _ in range(lines - seen + 1):
                index = block.rindex(b"\n", 0, index)
            return left + index + 1
        seen += count
        right = left
    return 0


class _LogCursor:
    """A place in the chain of a log's files that moves on over rotations. Blocking."""

    def __init__(self, path: Path, file: BinaryIO, after: str) -> None:
        self._path = path
        self._file = file
        self._after = after  # the newest rotated file before the one that is read
        self._rest = b""
        self._lock = threading.Lock()  # a cancelled caller closes while a thread still reads

    @classmethod
    def open(cls, path: Path, tail: int | None) -> _LogCursor:
        try:
            after, file = _open_live(path)
        except FileNotFoundError as exc:
            raise NotFound(
                f"there is no log {path}: the container was not started, or its log was removed"
            ) from exc
        if tail is not None:
            file.seek(tail_start(file, tail))
        return cls(path, file, after)

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def read_rendered(self, renderer: Renderer) -> bytes | None:
        """Return what is shown of the next lines; None when there are none for now."""
        with self._lock:
            block = self.read()
            return renderer.render(block) if block else None

    def read(self) -> bytes:
        """Return the next whole lines, at most a block or one line; empty at the end for now."""
        while True:
            data = self._file.read(BLOCK_BYTES)
            if data:
                end = data.rfind(b"\n") + 1
                if end == 0:
                    self._rest += data
                    continue
                block, self._rest = self._rest + data[:end], data[end:]
                return block
            # Unfinished lines are read again: a writer that failed halfway cuts them off.
            if self._rest:
                self._file.seek(-len(self._rest), os.SEEK_CUR)
                self._rest = b""
            if not self._next_file():
                return b""

    def _next_file(self) -> bool:
        """Move on to the file after this one, if this one was rotated and is read to its end."""
        later = self._later()
        if not later:
            return False
        # Nothing is added to a rotated file, but its last lines may be younger than the last read.
        if data := self._file.read(1):
            self._file.seek(-len(data), os.SEEK_CUR)
            return True
        try:
            while True:
                if len(later) > 1:
                    after, following = later[0].stamp, _open_rotated(later[1])
                    break
                after, following = _open_live(self._path)
                if after == later[0].stamp:
                    break
                following.close()  # rotated between the two looks
                later = self._later()
        except FileNotFoundError:  # removed, or about to be made by the writer, who then notifies
            return False
        self._file.close()
        self._file, self._after = following, after
        return True

    def _later(self) -> list[files.RotatedFile]:
        return [file for file in files.rotated_files(self._path) if file.stamp > self._after]


def _open_live(path: Path) -> tuple[str, BinaryIO]:
    """Open the live file and say which rotated file precedes it."""
    while True:
        before = _newest_stamp(path)
        file = path.open("rb", buffering=0)
        if _newest_stamp(path) == before:
            return before, cast("BinaryIO", file)
        file.close()


def _open_rotated(rotated: files.RotatedFile) -> BinaryIO:
    if rotated.compressed:
        return cast("BinaryIO", gzip.open(rotated.path, "rb"))
    return cast("BinaryIO", rotated.path.open("rb", buffering=0))


def _newest_stamp(path: Path) -> str:
    rotated = files.rotated_files(path)
    return rotated[-1].stamp if rotated else ""
