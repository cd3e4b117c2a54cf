"""A SPDY/3.1 connection, the server's side: bytes in, events out, and bytes to send.

There is no flow control within the connection, as in moby/spdystream: who can't take more stops
reading, and TCP stops the peer.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from vk_provider.common.errors import FailedPrecondition, Invalid
from vk_provider.streaming.spdy_frames import (
    FLAG_FIN,
    ControlFrame,
    DataPiece,
    FrameReader,
    FrameType,
    ResetStatus,
    control_frame,
    data_frame,
)
from vk_provider.streaming.spdy_headers import HeaderCompressor, HeaderDecompressor

MAX_STREAMS = 1024
_STREAM_ID = 0x7FFFFFFF
_MAX_DATA_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer wants a stream; it waits for `accept` or `reset`."""

    stream_id: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StreamData:
    """Bytes on a stream, in order."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The peer sends no more on a stream; it may still read."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer has given a stream up, both ways."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer opens no more streams."""


SpdyEvent = StreamOpened | StreamData | StreamEnded | StreamReset | GoneAway


@dataclass(slots=True)
class _Stream:
    """Which ways are still open: `theirs` to us, `ours` to them."""

    theirs: bool
    ours: bool = True


class SpdyConnection:
    """The protocol's state. After each call, send what `data_to_send` returns."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._compressor = HeaderCompressor()
        self._decompressor = HeaderDecompressor()
        self._streams: dict[int, _Stream] = {}
        self._last_id = 0
        self._out = bytearray()
        self._leaving = False

    def receive(self, data: bytes) -> list[SpdyEvent]:
        """Return what bytes from the peer mean; raises Invalid where the connection is lost."""
        events: list[SpdyEvent] = []
        for frame in self._reader.feed(data):
            if isinstance(frame, DataPiece):
                self._data(frame, events)
            else:
                self._control(frame, events)
        return events

    def data_to_send(self) -> bytes:
        """Return, once, the bytes for the peer."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def accept(self, stream_id: int) -> None:
        """Answer a StreamOpened."""
        self._open_stream(stream_id)
        payload = struct.pack(">I", stream_id) + self._compressor.compress({})
        self._out += control_frame(FrameType.SYN_REPLY, payload)

    def send(self, stream_id: int, data: bytes) -> None:
        """Send bytes on a stream; raises FailedPrecondition where it is closed to us."""
        self._open_stream(stream_id)
        for at in range(0, len(data), _MAX_DATA_BYTES):
            self._out += data_frame(stream_id, data[at : at + _MAX_DATA_BYTES])

    def end(self, stream_id: int) -> None:
        """Send no more on a stream; nothing happens where it is closed to us."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.ours:
            self._out += data_frame(stream_id, b"", fin=True)
            stream.ours = False
            self._forget_closed(stream_id)

    def reset(self, stream_id: int, status: ResetStatus = ResetStatus.CANCEL) -> None:
        """Give a stream up both ways; nothing happens where it is gone."""
        if self._streams.pop(stream_id, None) is not None:
            self._send_reset(stream_id, status)

    def is_open(self, stream_id: int) -> bool:
        """Tell whether anything may still be sent on a stream."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.ours

    def go_away(self) -> None:
        """Say that no more streams are taken."""
        if not self._leaving:
            self._leaving = True
            self._out += control_frame(FrameType.GOAWAY, struct.pack(">II", self._last_id, 0))

    def _data(self, piece: DataPiece, events: list[SpdyEvent]) -> None:
        stream = self._streams.get(piece.stream_id)
        if stream is None or not stream.theirs:
            if piece.stream_id > self._last_id and piece.last:
                self._send_reset(piece.stream_id, ResetStatus.INVALID_STREAM)
            return  # else late bytes of a stream that was given up
        if piece.data:
            events.append(StreamData(piece.stream_id, piece.data))
        if piece.last and piece.flags & FLAG_FIN:
            self._their_end(piece.stream_id, events)

    def _control(self, frame: ControlFrame, events: list[SpdyEvent]) -> None:
        try:
            match frame.type:
                case FrameType.SYN_STREAM:
                    self._syn_stream(frame, events)
                case FrameType.SYN_REPLY:
                    self._decompressor.decompress(frame.payload[4:])
                case FrameType.HEADERS:
                    (first,) = struct.unpack_from(">I", frame.payload)
                    self._decompressor.decompress(frame.payload[4:])
                    if frame.flags & FLAG_FIN:
                        self._their_end(first & _STREAM_ID, events)
                case FrameType.RST_STREAM:
                    stream_id, _ = struct.unpack(">II", frame.payload)
                    if self._streams.pop(stream_id & _STREAM_ID, None) is not None:
                        events.append(StreamReset(stream_id & _STREAM_ID))
                case FrameType.PING:
                    (number,) = struct.unpack(">I", frame.payload)
                    if number % 2:  # the peer's own; even ones answer ours
                        self._out += control_frame(FrameType.PING, frame.payload)
                case FrameType.GOAWAY:
                    events.append(GoneAway())
        except struct.error as exc:
            raise Invalid(f"A SPDY frame of type {frame.type} is malformed: {exc}") from exc

    def _syn_stream(self, frame: ControlFrame, events: list[SpdyEvent]) -> None:
        first, _, _ = struct.unpack_from(">IIH", frame.payload)
        headers = self._decompressor.decompress(frame.payload[10:])
        stream_id = first & _STREAM_ID
        if stream_id % 2 == 0 or stream_id <= self._last_id:
            raise Invalid(f"The peer opened stream {stream_id} after stream {self._last_id}")
        self._last_id = stream_id
        if self._leaving or len(self._streams) >= MAX_STREAMS:
            self._send_reset(stream_id, ResetStatus.REFUSED_STREAM)
            return
        self._streams[stream_id] = _Stream(theirs=True)
        events.append(StreamOpened(stream_id, headers))
        if frame.flags & FLAG_FIN:
            self._their_end(stream_id, events)

    def _their_end(self, stream_id: int, events: list[SpdyEvent]) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None and stream.theirs:
            stream.theirs = False
            self._forget_closed(stream_id)
            events.append(StreamEnded(stream_id))

    def _forget_closed(self, stream_id: int) -> None:
        stream = self._streams[stream_id]
        if not stream.theirs and not stream.ours:
            del self._streams[stream_id]

    def _open_stream(self, stream_id: int) -> None:
        if not self.is_open(stream_id):
            raise FailedPrecondition(
                f"SPDY stream {stream_id} is closed; nothing can be sent on it"
            )

    def _send_reset(self, stream_id: int, status: ResetStatus) -> None:
        self._out += control_frame(FrameType.RST_STREAM, struct.pack(">II", stream_id, status))
