"""What `kubectl logs` shows, by the kubelet's rules."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vk_provider._pb.guest_pb2 import OutputRecord
from vk_provider._pb.sandbox_pb2 import ReadLogsRequest
from vk_provider.agent.logs import ENDED, LogFeed, LogWriter, cri_format, read_logs
from vk_provider.agent.logs.reader import tail_start
from vk_provider.agent.logs.render import Renderer
from vk_provider.common.errors import Invalid, NotFound

SECOND = 1_000_000_000


def encode(records: list[OutputRecord]) -> bytes:
    return b"".join(map(cri_format.encode, records))


def lines(*numbers: int) -> list[OutputRecord]:
    return [OutputRecord(time_ns=number * SECOND, data=b"line %d\n" % number) for number in numbers]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    records = lines(1, 2, 3)
    records.append(OutputRecord(time_ns=4 * SECOND, data=b"oops\n", stderr=True))
    records.append(OutputRecord(time_ns=5 * SECOND, data=b"a long ", partial=True))
    records.append(OutputRecord(time_ns=6 * SECOND, data=b"line\n"))
    path.write_bytes(encode(records))
    return path


async def shown(path: Path, **options: object) -> bytes:
    request = ReadLogsRequest(**options)  # type: ignore[arg-type]
    return b"".join([piece async for piece in read_logs(path, request, ENDED)])


async def test_pieces_of_a_line_are_joined(log: Path) -> None:
    assert await shown(log) == b"line 1\nline 2\nline 3\noops\na long line\n"


async def test_tail_counts_lines_of_the_file(log: Path) -> None:
    assert await shown(log, tail_lines=2) == b"a long line\n"
    assert await shown(log, tail_lines=3) == b"oops\na long line\n"
    assert await shown(log, tail_lines=0) == b""
    assert await shown(log, tail_lines=100) == await shown(log)


async def test_timestamps_stand_at_the_beginning_of_lines(log: Path) -> None:
    assert (await shown(log, timestamps=True, tail_lines=3)).splitlines() == [
        b"1970-01-01T00:00:04.000000000Z oops",
        b"1970-01-01T00:00:05.000000000Z a long line",
    ]


async def test_since_leaves_out_what_is_older(log: Path) -> None:
    assert await shown(log, since_time_ns=3 * SECOND) == b"line 3\noops\na long line\n"


async def test_one_stream(log: Path) -> None:
    assert await shown(log, stream="Stderr") == b"oops\n"
    assert b"oops" not in await shown(log, stream="Stdout")


async def test_the_limit_cuts_a_line_and_counts_what_is_shown(log: Path) -> None:
    assert await shown(log, limit_bytes=9) == b"line 1\nli"
    assert await shown(log, limit_bytes=0) == b""
    assert await shown(log, limit_bytes=3, stream="Stderr") == b"oop"


async def test_bad_requests_are_told_apart(log: Path) -> None:
    for options in ({"stream": "Both"}, {"tail_lines": -1}, {"limit_bytes": -1}):
        with pytest.raises(Invalid):
            await shown(log, **options)
    with pytest.raises(NotFound, match="no log"):
        await shown(log.with_name("1.log"))


async def test_a_torn_last_line_is_not_shown(log: Path) -> None:
    whole = await shown(log)
    with log.open("ab") as file:
        file.write(b"1970-01-01T00:00:09.000000000Z stdo")
    assert await shown(log) == whole


def test_damaged_lines_are_left_out() -> None:
    rows = encode(lines(1, 2))
    block = b"garbage\n" + rows + b"\n\x00\n"
    assert Renderer(ReadLogsRequest()).render(block) == b"line 1\nline 2\n"


async def test_follow_goes_on_over_rotations_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    feed = LogFeed()
    writer = LogWriter(path, 100, 5, feed=feed)
    writer.resume(b"")
    writer.append(lines(1))
    seen = asyncio.Queue[bytes]()

    async def follow() -> None:
        async for piece in read_logs(path, ReadLogsRequest(follow=True), feed.subscribe()):
            seen.put_nowait(piece)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follow(), name="follow")
        assert await seen.get() == b"line 1\n"
        for number in range(2, 9):  # several rotations before the reader looks again
            writer.append(lines(number))
        feed.end()
    rest = b"".join(seen.get_nowait() for _ in range(seen.qsize()))
    assert rest == b"".join(b"line %d\n" % number for number in range(2, 9))
    writer.close()


async def test_following_with_tail_begins_there_and_is_not_limited(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(encode(lines(1, 2, 3)))
    assert await shown(path, follow=True, tail_lines=2) == b"line 2\nline 3\n"


async def test_a_reader_that_is_cancelled_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(encode(lines(1)))
    feed = LogFeed()
    first = asyncio.Event()

    async def follow() -> None:
        async for _piece in read_logs(path, ReadLogsRequest(follow=True), feed.subscribe()):
            first.set()

    task = asyncio.create_task(follow(), name="follow")
    await first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    feed.notify()


async def test_a_change_between_reading_and_waiting_is_not_missed() -> None:
    feed = LogFeed()
    live = feed.subscribe()
    feed.notify()
    await live.wait_change()
    feed.end()
    await live.wait_change()
    assert live.ended


@given(
    st.lists(st.integers(0, 200), max_size=40),
    st.integers(0, 50),
    st.booleans(),
)
def test_tail_finds_the_same_place_as_counting(sizes: list[int], count: int, torn: bool) -> None:
    text = b"".join(b"x" * size * 100 + b"\n" for size in sizes) + (b"torn" if torn else b"")
    whole = text.split(b"\n")
    expected = b"\n".join(whole[max(0, len(whole) - 1 - count) :])
    start = tail_start(io.BytesIO(text), count)
    assert text[start:] == expected


@given(
    st.lists(st.tuples(st.binary(max_size=12), st.booleans(), st.booleans()), max_size=12),
    st.lists(st.integers(0, 12), max_size=4),
    st.none() | st.integers(0, 60),
)
def test_where_blocks_are_cut_makes_no_difference(
    parts: list[tuple[bytes, bool, bool]], cuts: list[int], limit: int | None
) -> None:
    rows = [
        encode([OutputRecord(time_ns=1, data=data + b"\n" * (not part), stderr=err, partial=part)])
        for data, err, part in parts
    ]
    request = ReadLogsRequest() if limit is None else ReadLogsRequest(limit_bytes=limit)
    whole = Renderer(request).render(b"".join(rows))
    renderer = Renderer(request)
    pieces, start = [], 0
    for cut in [*sorted(cuts), len(rows)]:
        pieces.append(renderer.render(b"".join(rows[start:cut])))
        start = max(start, cut)
    assert b"".join(pieces) == whole
    everything = b"".join(data + b"\n" * (not part) for data, _err, part in parts)
    assert whole == (everything if limit is None else everything[:limit])
