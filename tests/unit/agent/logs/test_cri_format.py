"""Lines as they stand in the file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vk_provider._pb.guest_pb2 import OutputRecord
from vk_provider.agent.logs import cri_format
from vk_provider.agent.logs.cri_format import timestamp

# Now and then longer than one entry can be.
_LONG = st.binary(max_size=9).map(lambda part: part * (3 * cri_format.MAX_CONTENT_BYTES // 9))


def encode(records: list[OutputRecord]) -> bytes:
    return b"".join(map(cri_format.encode, records))


NOON = 1_767_355_445_000_000_007


def test_a_line_has_time_stream_tag_and_content() -> None:
    records = [
        OutputRecord(seq=1, time_ns=NOON, data=b"hello\nworld\n"),
        OutputRecord(seq=2, time_ns=NOON, data=b"oops\n", stderr=True),
        OutputRecord(seq=3, time_ns=NOON, data=b"no end", partial=True),
        OutputRecord(seq=4, eof=True),
    ]
    assert encode(records).splitlines() == [
        b"2026-01-02T12:04:05.000000007Z stdout F hello",
        b"2026-01-02T12:04:05.000000007Z stdout F world",
        b"2026-01-02T12:04:05.000000007Z stderr F oops",
        b"2026-01-02T12:04:05.000000007Z stdout P no end",
    ]


def test_empty_lines_are_lines() -> None:
    assert encode([OutputRecord(time_ns=NOON, data=b"\n\n")]).count(b" stdout F \n") == 2


def test_times_out_of_range_keep_the_form() -> None:
    assert timestamp(-5) == b"1970-01-01T00:00:00.000000000Z"
    assert timestamp(2**63 - 1) == b"2262-04-11T23:47:16.854775807Z"
    assert len(timestamp(10**30)) == cri_format.TIMESTAMP_BYTES


def test_long_lines_are_written_in_pieces() -> None:
    line = b"x" * (2 * cri_format.MAX_CONTENT_BYTES + 5)
    written = encode([OutputRecord(time_ns=NOON, data=line + b"\n" + b"y" * 20_000, partial=True)])
    tags = [row[38:39] for row in written.splitlines()]
    assert tags == [b"P", b"P", b"F", b"P", b"P"]


@given(st.lists(st.tuples(st.binary(max_size=40) | _LONG, st.booleans(), st.booleans())))
def test_content_survives(parts: list[tuple[bytes, bool, bool]]) -> None:
    records = [
        OutputRecord(
            time_ns=NOON, data=data if partial else data + b"\n", stderr=err, partial=partial
        )
        for data, err, partial in parts
    ]
    for stream, err in ((b"stdout", False), (b"stderr", True)):
        shown = b"".join(
            row[cri_format.HEADER_BYTES :] + (b"\n" if row[38:39] == b"F" else b"")
            for row in encode(records).split(b"\n")
            if row[31:37] == stream
        )
        assert shown == b"".join(record.data for record in records if record.stderr == err)
