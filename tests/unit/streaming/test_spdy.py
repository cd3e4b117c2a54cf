import itertools
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.spdy_client import SpdyClient
from vk_provider.common.errors import FailedPrecondition, Invalid
from vk_provider.streaming.spdy_connection import (
    MAX_STREAMS,
    GoneAway,
    SpdyConnection,
    SpdyEvent,
    StreamData,
    StreamEnded,
    StreamOpened,
    StreamReset,
)
from vk_provider.streaming.spdy_frames import FrameType, control_frame
from vk_provider.streaming.spdy_headers import (
    DICTIONARY,
    MAX_BLOCK_BYTES,
    HeaderCompressor,
    HeaderDecompressor,
)


class TestHeaders:
    def test_the_dictionary_is_the_protocols(self) -> None:
        # 0xe3c6a7c2 is in the draft: the Adler-32 that zlib streams made with it name.
        assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)

    def test_one_context_runs_through_all_blocks(self) -> None:
        compressor, decompressor = HeaderCompressor(), HeaderDecompressor()
        first, second = ({"Port": "80", "requestID": str(n)} for n in range(2))
        for headers in (first, second, {}):
            wanted = {name.lower(): value for name, value in headers.items()}
            assert decompressor.decompress(compressor.compress(headers)) == wanted

    def test_a_bomb_is_refused(self) -> None:
        bomb = HeaderCompressor().compress({"a": "x" * (MAX_BLOCK_BYTES + 1)})
        assert len(bomb) < 1000
        with pytest.raises(Invalid, match="longer than"):
            HeaderDecompressor().decompress(bomb)

    @given(st.binary(max_size=64))
    def test_garbage_is_refused(self, data: bytes) -> None:
        packed = zlib.compressobj(zdict=DICTIONARY)
        block = packed.compress(b"\x00\x00\x00\x09" + data) + packed.flush(zlib.Z_SYNC_FLUSH)
        with pytest.raises(Invalid):
            HeaderDecompressor().decompress(block)
        with pytest.raises(Invalid):
            HeaderDecompressor().decompress(b"not zlib" + data)


def a_conversation() -> tuple[bytes, list[SpdyEvent]]:
    client = SpdyClient()
    first, one = client.open(streamType="error", port="80")
    second, two = client.open(fin=True, streamType="data")
    sent = [
        one,
        client.send(first, b"hello"),
        client.ping(1),
        two,
        control_frame(FrameType.SETTINGS, b"\x00" * 4),
        control_frame(FrameType.WINDOW_UPDATE, b"\x00" * 8),
        control_frame(FrameType.GOAWAY, b"\x00" * 8),
        client.send(first, b" and bye", fin=True),
        client.reset(second),
    ]
    return b"".join(sent), [
        StreamOpened(first, {"streamtype": "error", "port": "80"}),
        StreamData(first, b"hello"),
        StreamOpened(second, {"streamtype": "data"}),
        StreamEnded(second),
        GoneAway(),
        StreamData(first, b" and bye"),
        StreamEnded(first),
        StreamReset(second),
    ]


def joined(events: list[SpdyEvent]) -> list[SpdyEvent]:
    """Join data that was cut on the way."""
    made: list[SpdyEvent] = []
    for event in events:
        last = made[-1] if made else None
        if (
            isinstance(event, StreamData)
            and isinstance(last, StreamData)
            and last.stream_id == event.stream_id
        ):
            made[-1] = StreamData(event.stream_id, last.data + event.data)
        else:
            made.append(event)
    return made


@given(st.lists(st.integers(0, len(a_conversation()[0])), max_size=12))
def test_a_conversation_however_it_is_cut(cuts: list[int]) -> None:
    data, wanted = a_conversation()
    connection = SpdyConnection()
    events: list[SpdyEvent] = []
    for start, end in itertools.pairwise([0, *sorted(cuts), len(data)]):
        events += connection.receive(data[start:end])
    assert joined(events) == wanted
    client = SpdyClient()
    client.receive(connection.data_to_send())
    assert client.pings == [1]


class TestConnection:
    def opened(self) -> tuple[SpdyConnection, SpdyClient, int]:
        connection, client = SpdyConnection(), SpdyClient()
        stream_id, frame = client.open(streamType="data")
        connection.receive(frame)
        connection.accept(stream_id)
        return connection, client, stream_id

    def test_answers_reach_the_client(self) -> None:
        connection, client, stream_id = self.opened()
        payload = bytes(range(256)) * 1000
        connection.send(stream_id, payload)
        connection.end(stream_id)
        connection.end(stream_id)
        connection.go_away()
        client.receive(connection.data_to_send())
        assert client.replies == {stream_id}
        assert client.data[stream_id] == payload
        assert (client.ended, client.gone) == ({stream_id}, True)
        assert connection.data_to_send() == b""

    def test_a_half_closed_stream_still_carries_the_other_way(self) -> None:
        connection, client, stream_id = self.opened()
        connection.end(stream_id)
        assert connection.receive(client.send(stream_id, b"x")) == [StreamData(stream_id, b"x")]
        with pytest.raises(FailedPrecondition):
            connection.send(stream_id, b"y")

    def test_late_bytes_of_a_stream_given_up_are_dropped(self) -> None:
        connection, client, stream_id = self.opened()
        connection.reset(stream_id)
        connection.reset(stream_id)
        assert connection.receive(client.send(stream_id, b"late", fin=True)) == []
        client.receive(connection.data_to_send())
        assert client.resets == {stream_id: 5}

    def test_data_for_a_stream_that_never_was_is_refused(self) -> None:
        connection, client, _ = self.opened()
        assert connection.receive(client.send(9, b"x")) == []
        client.receive(connection.data_to_send())
        assert client.resets == {9: 2}

    def test_streams_are_bounded(self) -> None:
        connection, client = SpdyConnection(), SpdyClient()
        for _ in range(MAX_STREAMS + 1):
            connection.receive(client.open()[1])
        client.receive(connection.data_to_send())
        assert client.resets == {2 * MAX_STREAMS + 1: 3}

    def test_pings_of_our_own_are_not_answered(self) -> None:
        connection, client, _ = self.opened()
        connection.data_to_send()
        connection.receive(client.ping(2))
        assert connection.data_to_send() == b""

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (struct.pack(">HHI", 0x8002, 1, 0), "version 2"),
            (struct.pack(">HHI", 0x8003, 1, 0xFFFFFF), "too long"),
            (control_frame(FrameType.PING, b""), "malformed"),
            (control_frame(FrameType.SYN_STREAM, b"1"), "malformed"),
            (control_frame(FrameType.RST_STREAM, b"\x00" * 4), "malformed"),
        ],
    )
    def test_what_is_no_spdy_ends_the_connection(self, data: bytes, words: str) -> None:
        with pytest.raises(Invalid, match=words):
            SpdyConnection().receive(data)

    def test_ids_only_grow(self) -> None:
        connection, client = SpdyConnection(), SpdyClient()
        connection.receive(client.open()[1])
        again = SpdyClient()
        again._compressor = client._compressor
        with pytest.raises(Invalid, match="opened stream 1 after stream 1"):
            connection.receive(again.open()[1])
