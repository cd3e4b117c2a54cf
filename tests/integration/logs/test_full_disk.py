"""A log on a file system that is really full."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vk_provider._pb.guest_pb2 import OutputRecord
from vk_provider.agent.logs import LogWriter, files

pytestmark = pytest.mark.vm

LINE = b"x" * 80


def batch(first: int) -> list[OutputRecord]:
    return [
        OutputRecord(seq=number, time_ns=number, data=b"%06d %s\n" % (number, LINE))
        for number in range(first, first + 100)
    ]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("max_bytes", [0, 64 * 1024])
def test_a_full_disk_stops_the_log_and_loses_nothing(small: Path, max_bytes: int) -> None:
    live = small / "pod" / "0.log"
    ballast = small / "ballast"
    ballast.write_bytes(b"x" * 100 * 1024)
    writer = LogWriter(live, max_bytes, 100)
    writer.resume(b"")
    number, cookie = 0, b""
    with pytest.raises(OSError) as full:
        while True:
            cookie = writer.append(batch(number))
            number += 100
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(OSError):
        writer.append(batch(number))
    # A restart meanwhile, then there is room again.
    writer.close()
    writer = LogWriter(live, max_bytes, 100)
    writer.resume(cookie)
    ballast.unlink()
    for _ in range(3):
        writer.append(batch(number))
        number += 100
    writer.close()
    text = b"".join(
        subprocess.run(["zcat", "-f", path], check=True, capture_output=True).stdout
        for path in [*(file.path for file in files.rotated_files(live)), live]
    )
    numbers = [int(line.split(b" ")[3]) for line in text.splitlines()]
    assert numbers == list(range(number))
