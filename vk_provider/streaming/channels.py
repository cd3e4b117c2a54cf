"""The WebSocket channel protocol: several byte streams over one connection's messages.

Each message starts with the number of its channel. Which subprotocols exist, and what each can
do, follows `k8s.io/streaming/pkg/httpstream/wsstream` and the constants in
`k8s.io/apimachinery/pkg/util/remotecommand`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from vk_provider.common.errors import Invalid

_CLOSE_SIGNAL = 255


class Channel(IntEnum):
    """The channels of a remote command."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4


@dataclass(frozen=True, slots=True)
class Subprotocol:
    """What one name in `Sec-WebSocket-Protocol` promises.

    `text`: messages are text, a digit and base64. `half_close`: `[255, n]` closes channel n alone.
    `json_status`: the outcome is a metav1.Status, told on success too; else a failure's bare text.
    """

    name: str
    text: bool = False
    half_close: bool = False
    json_status: bool = False


V5 = Subprotocol("v5.channel.k8s.io", half_close=True, json_status=True)
V4 = Subprotocol("v4.channel.k8s.io", json_status=True)
V4_BASE64 = Subprotocol("v4.base64.channel.k8s.io", text=True, json_status=True)
V1 = Subprotocol("channel.k8s.io")
V1_BASE64 = Subprotocol("base64.channel.k8s.io", text=True)
UNNAMED = Subprotocol("")

SUBPROTOCOLS = (V5, V4, V4_BASE64, V1, V1_BASE64, UNNAMED)


def negotiate(requested: Sequence[str]) -> Subprotocol:
    """Return the subprotocol to speak: v5 where offered, else the client's first that is known.

    A client that names none gets the oldest. Raises Invalid where none is known.
    """
    known = {each.name: each for each in SUBPROTOCOLS}
    if V5.name in requested:
        return V5
    for name in requested or ("",):
        if name in known:
            return known[name]
    supported = ", ".join(name for name in known if name)
    raise Invalid(
        f"None of the requested subprotocols ({', '.join(requested)}) is known here; use one of "
        f"{supported}"
    )


@dataclass(frozen=True, slots=True)
class ChannelData:
    """Bytes that came on a channel; `channel` may be a number that means nothing here."""

    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """The peer will send no more on this channel."""

    channel: Channel


def decode(protocol: Subprotocol, message: bytes | str) -> ChannelData | ChannelClosed | None:
    """Return what a message says, None for an empty one; raises Invalid where it says nothing."""
    raw = message.encode() if isinstance(message, str) else message
    if not raw:
        return None
    if protocol.half_close and raw[0] == _CLOSE_SIGNAL:
        return _closed(raw)
    if not protocol.text:
        return ChannelData(raw[0], raw[1:])
    try:
        return ChannelData(raw[0] - ord("0"), base64.b64decode(raw[1:], validate=True))
    except binascii.Error as exc:
        raise Invalid(f"A message of the {protocol.name} protocol is not base64: {exc}") from exc


def encode(protocol: Subprotocol, channel: Channel, data: bytes) -> bytes | str:
    """Return the message that carries `data` on a channel: text or binary, as its type says."""
    if protocol.text:
        return f"{channel:d}{base64.b64encode(data).decode('ascii')}"
    return bytes((channel,)) + data


def _closed(raw: bytes) -> ChannelClosed:
    if len(raw) != 2:
        raise Invalid(
            f"A close signal must be followed by one byte, the channel; {len(raw) - 1} came"
        )
    try:
        return ChannelClosed(Channel(raw[1]))
    except ValueError as exc:
        raise Invalid(f"A close signal names channel {raw[1]}, which does not exist") from exc
