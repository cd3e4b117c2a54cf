"""SPDY/3.1's header blocks: names and values, compressed with a dictionary that both ends know.

One compression context runs through a connection in each direction, so every block must be read,
whether it matters or not. The dictionary is the protocol's own (SPDY protocol draft 3.1, 2.6.10.1).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from vk_provider.common.errors import Invalid

MAX_BLOCK_BYTES = 64 * 1024

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language "
    "accept-ranges age allow authorization cache-control connection content-base "
    "content-encoding content-language content-length content-location content-md5 "
    "content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location "
    "max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after "
    "server te trailer transfer-encoding upgrade user-agent vary via warning "
    "www-authenticate method get status"
)
_MORE_WORDS = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive")
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 "
    "Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
    "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _counted(text: str) -> bytes:
    return struct.pack(">I", len(text)) + text.encode("ascii")


DICTIONARY = (
    b"".join(_counted(word) for word in (*_WORDS.split(), *_MORE_WORDS, "origin")) + _TAIL.encode()
)


class HeaderCompressor:
    """Makes blocks for one direction of a connection."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def compress(self, headers: Mapping[str, str]) -> bytes:
        """Return the next block; names go in lower case."""
        block = struct.pack(">I", len(headers)) + b"".join(
            _counted(name.lower()) + _counted(value) for name, value in headers.items()
        )
        return self._zlib.compress(block) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class HeaderDecompressor:
    """Reads the blocks of one direction of a connection."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def decompress(self, data: bytes) -> dict[str, str]:
        """Return the headers of the next block; raises Invalid, after which nothing can be read."""
        try:
            block = self._zlib.decompress(data, MAX_BLOCK_BYTES)
        except zlib.error as exc:
            raise Invalid(f"A SPDY header block can't be decompressed: {exc}") from exc
        if self._zlib.unconsumed_tail:
            raise Invalid(f"A SPDY header block is longer than {MAX_BLOCK_BYTES} bytes")
        try:
            return _parse(block)
        except (struct.error, UnicodeDecodeError, IndexError) as exc:
            raise Invalid(f"A SPDY header block is malformed: {exc}") from exc


def _parse(block: bytes) -> dict[str, str]:
    (count,) = struct.unpack_from(">I", block)
    at = 4
    texts: list[str] = []
    for _ in range(2 * count):
        (length,) = struct.unpack_from(">I", block, at)
        at += 4
        if at + length > len(block):
            raise IndexError("it ends within a name or value")
        texts.append(block[at : at + length].decode("latin-1"))
        at += length
    return dict(zip(texts[::2], texts[1::2], strict=True))
