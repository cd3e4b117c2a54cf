"""The files of one container's log: the live one and those rotated away.

`0.log` is written to; `0.log.20260102-150405` are older ones, `0.log.20260102-150405.gz`
older still (the kubelet's names, pkg/kubelet/logs/container_log_manager.go). A rotated file's
stamp is unique and greater than all before it, so stamps give the files' order for good, also
over compression and a clock that is set back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

COMPRESSED = ".gz"
UNFINISHED = ".tmp"
_STAMP = re.compile(r"\d{8}-\d{6}", re.ASCII)
_STAMP_FORMAT = "%Y%m%d-%H%M%S"
_NO_YEAR = "9999"  # the last one, which nothing follows


@dataclass(frozen=True, order=True)
class RotatedFile:
    """One rotated file; they sort from the oldest to the newest."""

    stamp: str
    path: Path

    @property
    def compressed(self) -> bool:
        return self.path.name.endswith(COMPRESSED)


def is_stamp(text: str) -> bool:
    """Whether the text can be a rotated file's stamp: a time that others can follow."""
    if _STAMP.fullmatch(text) is None or text >= _NO_YEAR:
        return False
    try:
        datetime.strptime(text, _STAMP_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return False
    return True


def rotated_files(live: Path) -> list[RotatedFile]:
    """Return the rotated files, oldest first; without half-made ones and doubles.

    Where both a file and its compressed form are there, compression was cut off between its
    last two steps: the compressed one is complete and counts.
    """
    found: dict[str, RotatedFile] = {}
    prefix = live.name + "."
    for path in live.parent.glob(f"{_escape(live.name)}.*"):
        stamp = path.name.removeprefix(prefix).removesuffix(COMPRESSED)
        if is_stamp(stamp) and (stamp not in found or path.name.endswith(COMPRESSED)):
            found[stamp] = RotatedFile(stamp, path)
    return sorted(found.values())


def leftovers(live: Path) -> list[Path]:
    """Return what an interrupted compression left behind and nobody needs."""
    files = set(live.parent.glob(f"{_escape(live.name)}.*"))
    return [
        path
        for path in files
        if path.name.endswith(UNFINISHED) or path.with_name(path.name + COMPRESSED) in files
    ]


def next_stamp(now_ns: int, newest: str) -> str:
    """Return the stamp for a file rotated now: the time, or the first second after `newest`."""
    now = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime(_STAMP_FORMAT)
    if now > newest:
        return now
    after = datetime.strptime(newest, _STAMP_FORMAT).replace(tzinfo=UTC) + timedelta(seconds=1)
    return after.strftime(_STAMP_FORMAT)


def log_bytes(live: Path) -> int:
    """Return how much of the disk the log takes, rotated files and all (st_blocks)."""
    return sum(_disk_bytes(path) for path in _all_files(live))


def remove_logs(live: Path) -> None:
    """Remove the log with its rotated files. May be repeated; raises OSError."""
    for path in _all_files(live):
        path.unlink(missing_ok=True)


def _all_files(live: Path) -> list[Path]:
    return [live, *live.parent.glob(f"{_escape(live.name)}.*")]


def _disk_bytes(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:  # rotated or removed meanwhile
        return 0


def _escape(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
