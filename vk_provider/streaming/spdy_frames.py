"""SPDY/3.1's frames (SPDY protocol draft 3.1, 2.2 and 2.6), as far as moby/spdystream uses them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from vk_provider.common.errors import Invalid

FLAG_FIN = 0x01
_VERSION = 3
_CONTROL = 0x80000000
_HEAD_BYTES = 8
_MAX_CONTROL_BYTES = 64 * 1024


class FrameType(IntEnum):
    """Control frames; others are skipped, as the protocol wants."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class ResetStatus(IntEnum):
    """Why a stream is reset."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """A whole control frame."""

    type: int
    flags: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class DataPiece:
    """A piece of a data frame as it comes in; `last` and FIN in `flags`: the stream's end."""

    stream_id: int
    flags: int
    data: bytes
    last: bool


class FrameReader:
    """Cuts bytes into frames. Data is passed on as it comes; only control frames are gathered."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._data_left = 0
        self._data_head = (0, 0)

    def feed(self, data: bytes) -> Iterator[ControlFrame | DataPiece]:
        """Yield what is there now; raises Invalid where the peer does not speak SPDY/3.1."""
        self._buffer += data
        while True:
            frame = self._in_data() if self._data_left else self._at_head()
            if frame is None:
                return
            yield frame

    def _in_data(self) -> DataPiece | None:
        if not self._buffer:
            return None
        piece = bytes(self._buffer[: self._data_left])
        del self._buffer[: len(piece)]
        self._data_left -= len(piece)
        stream_id, flags = self._data_head
        return DataPiece(stream_id, flags, piece, last=not self._data_left)

    def _at_head(self) -> ControlFrame | DataPiece | None:
        if len(self._buffer) < _HEAD_BYTES:
            return None
        first, second = struct.unpack_from(">II", self._buffer)
        flags, length = second >> 24, second & 0xFFFFFF
        if not first & _CONTROL:
            del self._buffer[:_HEAD_BYTES]
            if not length:
                return DataPiece(first, flags, b"", last=True)
            self._data_head, self._data_left = (first, flags), length
            return self._in_data()
        if first >> 16 & 0x7FFF != _VERSION:
            raise Invalid(f"The peer speaks version {first >> 16 & 0x7FFF} of SPDY, not 3")
        if length > _MAX_CONTROL_BYTES:
            raise Invalid(f"A SPDY control frame of {length} bytes is too long")
        if len(self._buffer) < _HEAD_BYTES + length:
            return None
        payload = bytes(self._buffer[_HEAD_BYTES : _HEAD_BYTES + length])
        del self._buffer[: _HEAD_BYTES + length]
        return ControlFrame(first & 0xFFFF, flags, payload)


def control_frame(kind: FrameType, payload: bytes, flags: int = 0) -> bytes:
    """Return a control frame."""
    return struct.pack(">HHI", 0x8000 | _VERSION, kind, flags << 24 | len(payload)) + payload


def data_frame(stream_id: int, data: bytes, *, fin: bool = False) -> bytes:
    """Return a data frame; `data` must be shorter than 16 MiB."""
    return struct.pack(">II", stream_id, (FLAG_FIN if fin else 0) << 24 | len(data)) + data
