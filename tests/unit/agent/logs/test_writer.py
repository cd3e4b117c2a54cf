"""Each line once, in order: over restarts, rotation and a full disk."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_clock import FakeClock
from vk_provider._pb.guest_pb2 import OutputRecord
from vk_provider.agent.logs import LogWriter, files, log_bytes, remove_logs
from vk_provider.common.errors import Invalid


def record(number: int) -> OutputRecord:
    return OutputRecord(seq=number, time_ns=number, data=b"line %06d\n" % number)


def content(live: Path) -> list[int]:
    """The numbers in all files of the log, oldest first."""
    text = b""
    for rotated in files.rotated_files(live):
        text += _plain(rotated)
    if live.exists():
        text += live.read_bytes()
    return [int(line.rsplit(b" ", 1)[1]) for line in text.splitlines()]


def _plain(rotated: files.RotatedFile) -> bytes:
    data = rotated.path.read_bytes()
    return gzip.decompress(data) if rotated.compressed else data


def opened(path: Path, *, max_bytes: int = 0, max_files: int = 5, cookie: bytes = b"") -> LogWriter:
    writer = LogWriter(path, max_bytes, max_files, clock=FakeClock())
    writer.resume(cookie)
    return writer


def test_what_was_not_acknowledged_is_cut_off(tmp_path: Path) -> None:
    live = tmp_path / "ns_pod_uid" / "main" / "0.log"
    writer = opened(live)
    writer.append([record(1)])
    cookie = writer.append([record(2), record(3)])
    writer.append([record(4)])
    writer.close()
    again = opened(live, cookie=cookie)
    assert content(live) == [1, 2, 3]
    again.append([record(4), record(5)])
    again.close()
    assert content(live) == [1, 2, 3, 4, 5]


def test_an_empty_cookie_is_the_beginning(tmp_path: Path) -> None:
    live = tmp_path / "0.log"
    opened(live).append([record(1)])
    opened(live).append([record(1)])
    assert content(live) == [1]


@pytest.mark.parametrize(
    "cookie",
    [
        b"{",
        b"[]",
        b'{"after":"","offset":-1}',
        b'{"after":"","offset":true}',
        b'{"after":"../../etc","offset":0}',
        b'{"after":"99999999-999999","offset":0}',
        b'{"after":"99991231-235959","offset":0}',
        '{"after":"2026010\u0661-000000","offset":0}'.encode(),
        b"[" * 4096,
        b'{"after":""}',
        b'{"after":"","offset":99999999999999999999}',
        b"\xff" * 4096,
    ],
)
def test_a_forged_cookie_is_refused(tmp_path: Path, cookie: bytes) -> None:
    live = tmp_path / "0.log"
    opened(live).append([record(1)])
    with pytest.raises(Invalid, match="cookie"):
        LogWriter(live, 0, 5).resume(cookie)
    assert content(live) == [1]


def test_a_cookie_beyond_the_end_does_not_pad_the_file(tmp_path: Path) -> None:
    live = tmp_path / "0.log"
    writer = opened(live, cookie=b'{"after":"","offset":4096}')
    writer.append([record(1)])
    assert content(live) == [1]


def test_rotation_keeps_so_many_files_and_compresses_all_but_the_newest(tmp_path: Path) -> None:
    live = tmp_path / "0.log"
    writer = opened(live, max_bytes=100, max_files=4)
    for number in range(40):
        writer.append([record(number)])
    writer.close()
    rotated = files.rotated_files(live)
    assert len(rotated) == 3
    assert [file.compressed for file in rotated][-1] is False
    numbers = content(live)
    assert numbers == list(range(numbers[0], 40))
    assert log_bytes(live) > 0
    remove_logs(live)
    remove_logs(live)
    assert list(tmp_path.iterdir()) == []


def test_two_files_are_the_live_one_and_one_more(tmp_path: Path) -> None:
    live = tmp_path / "0.log"
    writer = opened(live, max_bytes=100, max_files=2)
    for number in range(40):
        writer.append([record(number)])
    writer.close()
    assert len(files.rotated_files(live)) == 1
    with pytest.raises(Invalid, match="2 files"):
        LogWriter(live, 100, 1)


def test_half_made_files_of_a_compression_are_removed(tmp_path: Path) -> None:
    live = tmp_path / "0.log"
    (tmp_path / "0.log.20260101-000000").write_bytes(b"x")
    (tmp_path / "0.log.20260101-000000.gz").write_bytes(gzip.compress(b"x"))
    (tmp_path / "0.log.20260101-000001.gz.tmp").write_bytes(b"half")
    opened(live, cookie=b'{"after":"20260101-000000","offset":0}').close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.log", "0.log.20260101-000000.gz"]


@given(
    batches=st.lists(st.integers(1, 4), min_size=1, max_size=30),
    crash_at=st.integers(0, 29),
    acked_back=st.integers(0, 6),
    max_bytes=st.sampled_from([0, 60, 150, 400]),
)
def test_any_crash_and_any_late_acknowledgement_leaves_each_line_once(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[int],
    crash_at: int,
    acked_back: int,
    max_bytes: int,
) -> None:
    live = tmp_path_factory.mktemp("log") / "0.log"
    writer = opened(live, max_bytes=max_bytes, max_files=100)
    cookies = [(0, b"")]
    number = 0
    for index, size in enumerate(batches):
        cookie = writer.append([record(number + offset) for offset in range(size)])
        number += size
        cookies.append((number, cookie))
        if index == crash_at:
            writer.close()
            number, cookie = cookies[max(0, len(cookies) - 1 - acked_back)]
            writer = opened(live, max_bytes=max_bytes, max_files=100, cookie=cookie)
            assert content(live) == list(range(number))
    writer.close()
    assert content(live) == list(range(number))


def test_a_full_disk_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = tmp_path / "0.log"
    writer = opened(live)
    writer.append([record(1)])
    write = os.pwrite
    room = 20

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(room, len(data))
        room -= taken
        return write(fd, data[:taken], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="No space"):
        writer.append([record(2), record(3)])
    assert content(live) == [1]
    room = 10_000
    writer.append([record(2), record(3)])
    assert content(live) == [1, 2, 3]


def test_a_line_that_cannot_be_cut_at_once_is_cut_before_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = tmp_path / "0.log"
    writer = opened(live)
    writer.append([record(1)])

    def torn(fd: int, data: bytes, offset: int) -> int:
        os.lseek(fd, offset, os.SEEK_SET)
        os.write(fd, data[:7])
        raise OSError(errno.EIO, "Input/output error")

    def no_truncate(fd: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", torn)
        patch.setattr(os, "ftruncate", no_truncate)
        with pytest.raises(OSError, match="Input"):
            writer.append([record(2)])
    writer.append([record(2)])
    assert content(live) == [1, 2]


def test_a_clock_that_is_set_back_keeps_the_order_of_files() -> None:
    assert files.next_stamp(0, "") == "19700101-000000"
    assert files.next_stamp(0, "20261231-235959") == "20270101-000000"
