"""The client's side of SPDY/3.1, as far as tests of the server need it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from vk_provider.streaming.spdy_frames import (
    FLAG_FIN,
    DataPiece,
    FrameReader,
    FrameType,
    control_frame,
    data_frame,
)
from vk_provider.streaming.spdy_headers import HeaderCompressor, HeaderDecompressor


@dataclass
class SpdyClient:
    """Makes frames, and notes what the server's frames say, by stream."""

    replies: set[int] = field(default_factory=set)
    resets: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    data: dict[int, bytes] = field(default_factory=dict)
    pings: list[int] = field(default_factory=list)
    gone: bool = False

    def __post_init__(self) -> None:
        self._compressor = HeaderCompressor()
        self._decompressor = HeaderDecompressor()
        self._reader = FrameReader()
        self._next_id = 1

    def open(self, fin: bool = False, **headers: str) -> tuple[int, bytes]:
        """Return the id of a new stream, and its frame."""
        stream_id, self._next_id = self._next_id, self._next_id + 2
        block = self._compressor.compress(headers)
        payload = struct.pack(">IIH", stream_id, 0, 0) + block
        return stream_id, control_frame(FrameType.SYN_STREAM, payload, FLAG_FIN if fin else 0)

    def send(self, stream_id: int, data: bytes, fin: bool = False) -> bytes:
        return data_frame(stream_id, data, fin=fin)

    def reset(self, stream_id: int) -> bytes:
        return control_frame(FrameType.RST_STREAM, struct.pack(">II", stream_id, 5))

    def ping(self, number: int) -> bytes:
        return control_frame(FrameType.PING, struct.pack(">I", number))

    def receive(self, data: bytes) -> None:
        """Take note of the server's bytes."""
        for frame in self._reader.feed(data):
            if isinstance(frame, DataPiece):
                self.data[frame.stream_id] = self.data.get(frame.stream_id, b"") + frame.data
                if frame.last and frame.flags & FLAG_FIN:
                    self.ended.add(frame.stream_id)
                continue
            (first,) = struct.unpack_from(">I", frame.payload)
            match frame.type:
                case FrameType.SYN_REPLY:
                    assert self._decompressor.decompress(frame.payload[4:]) == {}
                    self.replies.add(first)
                case FrameType.RST_STREAM:
                    self.resets[first] = struct.unpack(">II", frame.payload)[1]
                case FrameType.PING:
                    self.pings.append(first)
                case FrameType.GOAWAY:
                    self.gone = True
