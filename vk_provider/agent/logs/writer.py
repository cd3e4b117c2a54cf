"""Appends a container's output to its log and remembers, by cookies, how far it came.

The order of things makes each line appear once: write, then hand out the cookie, then (the
caller) acknowledge with it. What the guest was not told of is cut off again by `resume`, and
comes again.
"""

from __future__ import annotations

import gzip
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import orjson

from vk_provider._pb.guest_pb2 import OutputRecord
from vk_provider.agent.logs import files
from vk_provider.agent.logs.cri_format import encode
from vk_provider.agent.logs.feed import LogFeed
from vk_provider.common.clock import Clock, SystemClock
from vk_provider.common.errors import Invalid
from vk_provider.common.logging import get_logger

_log = get_logger("agent.logs")
_COPY_BYTES = 1024 * 1024
_WRITE_BYTES = 512 * 1024
# One thread for all logs: compression is not urgent and must not take the machine.
_compressor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="log-compress")


@dataclass(frozen=True)
class Place:
    """A place in a log that outlives rotation and compression; encoded, it is the cookie.

    The file is the first one after the rotated file `after` (empty: the very first); that is
    the live file as long as nothing newer was rotated.
    """

    after: str
    offset: int

    def to_cookie(self) -> bytes:
        return orjson.dumps({"after": self.after, "offset": self.offset})

    @classmethod
    def from_cookie(cls, cookie: bytes) -> Self:
        """Read a cookie back; it comes from the guest, so every part is checked.

        An empty one is the log's beginning. Raises Invalid.
        """
        if not cookie:
            return cls("", 0)
        problem = f"the guest returned a cookie that is none of ours: {cookie[:80]!r}"
        try:
            fields = orjson.loads(cookie)
        except orjson.JSONDecodeError as exc:
            raise Invalid(problem) from exc
        if not isinstance(fields, dict) or fields.keys() != {"after", "offset"}:
            raise Invalid(problem)
        after, offset = fields["after"], fields["offset"]
        if type(after) is not str or type(offset) is not int or not 0 <= offset < 2**63:
            raise Invalid(problem)
        if after and not files.is_stamp(after):
            raise Invalid(problem)
        return cls(after, offset)


class LogWriter:
    """The one writer of a container's log.

    path: the live file; its directory is made (0755) when missing.
    max_bytes: a file of that size is rotated before the next batch (0: never).
    max_files: how many are kept, the live one included; at least 2.
    feed: told of each change, for those who follow.

    Use: construct, `resume` with the guest's last cookie (empty for a new container), then
    `append`. The methods are short and blocking; each waits for another one under way in some
    thread, so that a cancelled caller may close while its batch is still being written.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        max_files: int,
        *,
        feed: LogFeed | None = None,
        clock: Clock | None = None,
    ) -> None:
        if max_bytes < 0 or max_files < 2:
            raise Invalid(
                f"a log cannot be kept in {max_files} files of {max_bytes} bytes: "
                "at least 2 files are needed, and 0 bytes stands for no limit"
            )
        self.path = path
        self.feed = feed or LogFeed()
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._clock = clock or SystemClock()
        self._fd = -1
        self._place = Place("", 0)
        self._torn = False
        self._compressing: Future[None] | None = None
        self._lock = threading.Lock()
        self._names = threading.Lock()  # held while rotated files come and go

    def resume(self, cookie: bytes) -> None:
        """Open the log and cut off what was written after the cookie's place.

        Raises Invalid for a cookie that is none, OSError as the file system says.
        """
        place = Place.from_cookie(cookie)
        with self._lock:
            self._resume(place)
        self.feed.notify()

    def _resume(self, place: Place) -> None:
        self._close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for path in files.leftovers(self.path):
            path.unlink(missing_ok=True)
        later = [file for file in files.rotated_files(self.path) if file.stamp > place.after]
        if later:
            self._take_back(later, place.offset)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        size = os.fstat(fd).st_size
        if size < place.offset:
            _log.warning(
                "log shorter than acknowledged: someone cut it",
                path=str(self.path),
                size=size,
                acked=place.offset,
            )
        elif size > place.offset:
            os.ftruncate(fd, place.offset)
        self._fd = fd
        self._place = Place(place.after, min(size, place.offset))
        self._torn = False

    def append(self, records: Sequence[OutputRecord]) -> bytes:
        """Write the records' lines; return the cookie of the place behind them.

        Raises OSError (a full disk, above all); then nothing of the batch is in the log, and
        the same batch may be tried again at any time.
        """
        with self._lock:
            if self._fd < 0:
                raise RuntimeError(f"the log {self.path} is not open: call resume first")
            if self._torn:
                os.ftruncate(self._fd, self._place.offset)
                self._torn = False
            if self._max_bytes and self._place.offset >= self._max_bytes:
                self._rotate()
            before = self._place
            self._write(records)
            after = self._place
        if after != before:
            self.feed.notify()
        return after.to_cookie()

    def close(self) -> None:
        """Close the file and wait for a compression that is under way. May be repeated."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._compressing is not None:
            if not self._compressing.cancel():
                self._compressing.result()
            self._compressing = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, records: Sequence[OutputRecord]) -> None:
        """Write all records' lines or nothing; a part at a time, for they can be 40 times as long.

        (A record of 16 KiB may hold as many line ends, and each line gets a header.)
        """
        start = end = self._place.offset
        waiting: list[bytes] = []
        size = 0
        try:
            for record in records:
                lines = encode(record)
                waiting.append(lines)
                size += len(lines)
                if size >= _WRITE_BYTES:
                    end = self._write_at(b"".join(waiting), end)
                    waiting, size = [], 0
            end = self._write_at(b"".join(waiting), end)
        except OSError:
            # Whatever part is there is cut off before the next attempt, or now if possible.
            self._torn = True
            os.ftruncate(self._fd, start)
            self._torn = False
            raise
        self._place = Place(self._place.after, end)

    def _write_at(self, data: bytes, offset: int) -> int:
        """Write at an offset; return the one behind it."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written
        return offset

    def _rotate(self) -> None:
        """Put the live file aside and begin a new one; the old ones are thinned out first."""
        with self._names:
            old = files.rotated_files(self.path)
            # As the kubelet counts: the live file and the one put aside now are kept too.
            for file in old[: max(0, len(old) - (self._max_files - 2))]:
                file.path.unlink(missing_ok=True)
        newest = max(old[-1].stamp if old else "", self._place.after)
        stamp = files.next_stamp(self._clock.now_ns(), newest)
        rotated = self.path.with_name(f"{self.path.name}.{stamp}")
        self.path.rename(rotated)
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except OSError:
            rotated.rename(self.path)
            raise
        os.close(self._fd)
        self._fd = fd
        self._place = Place(stamp, 0)
        # The newest stays plain until the next rotation, for readers that are not through.
        plain = [file.path for file in old[-(self._max_files - 2) :] if not file.compressed]
        idle = self._compressing is None or self._compressing.done()
        if self._max_files > 2 and plain and idle:
            self._compressing = _compressor.submit(_compress, plain, self._names)

    def _take_back(self, later: list[files.RotatedFile], offset: int) -> None:
        """Make the first of `later` the live file again; those after it will be sent anew."""
        first, *rest = later
        _log.info("taking a rotated log back", path=str(first.path), dropped=len(rest))
        source = first.path
        if first.compressed:
            source = self.path.with_name(f"{self.path.name}.{first.stamp}{files.UNFINISHED}")
            with gzip.open(first.path) as packed, source.open("wb") as plain:
                _copy(packed, plain, offset)
        # From the newest on, so that an interruption leaves no gap in the order.
        self.path.unlink(missing_ok=True)
        for file in reversed(rest):
            file.path.unlink(missing_ok=True)
        source.rename(self.path)
        if first.compressed:
            first.path.unlink()


def _copy(source: gzip.GzipFile, target: BinaryIO, limit: int) -> None:
    """Copy at most `limit` bytes."""
    while limit > 0 and (block := source.read(min(limit, _COPY_BYTES))):
        target.write(block)
        limit -= len(block)


def _compress(paths: list[Path], names: threading.Lock) -> None:
    """Replace files by their gzipped form; a failure leaves the plain file for the next time."""
    for path in paths:
        unfinished = path.with_name(path.name + files.COMPRESSED + files.UNFINISHED)
        try:
            with path.open("rb") as source, gzip.open(unfinished, "wb", compresslevel=1) as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)
            with names:
                if path.exists():
                    unfinished.rename(path.with_name(path.name + files.COMPRESSED))
                    path.unlink()
                else:
                    unfinished.unlink()
        except FileNotFoundError:  # thinned out before its turn came
            unfinished.unlink(missing_ok=True)
        except OSError as exc:
            unfinished.unlink(missing_ok=True)
            _log.warning("a rotated log stays uncompressed", path=str(path), error=str(exc))
