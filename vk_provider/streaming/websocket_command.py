"""One exec or attach over the WebSocket channel protocol, the server's side."""

from __future__ import annotations

from vk_provider.common.errors import FailedPrecondition
from vk_provider.streaming.channels import Channel, ChannelData, Subprotocol, decode, encode
from vk_provider.streaming.remotecommand import (
    Input,
    ResizeDecoder,
    Status,
    Stdin,
    StdinClosed,
    StreamOptions,
    encode_status,
)

Message = bytes | str


class WebSocketCommand:
    """Turns messages into what the process gets, and what it says into messages.

    Streams that the client did not ask for are closed to it both ways, as the kubelet's
    `createChannels` has it: what comes on them is dropped.
    """

    def __init__(self, protocol: Subprotocol, options: StreamOptions) -> None:
        self._protocol = protocol
        self._options = options
        self._stdin_open = options.stdin
        self._resizes = ResizeDecoder()
        self._finished = False

    def opening(self) -> Message:
        """Return the empty message that tells the client that the exchange has begun."""
        if self._options.stdout:
            return encode(self._protocol, Channel.STDOUT, b"")
        if self._options.stderr:
            return encode(self._protocol, Channel.STDERR, b"")
        return encode(self._protocol, Channel.ERROR, b"")

    def receive(self, message: Message) -> list[Input]:
        """Return what a message means for the process; raises Invalid where it means nothing."""
        event = decode(self._protocol, message)
        match event:
            case ChannelData(Channel.STDIN, data) if self._stdin_open and data:
                return [Stdin(data)]
            case ChannelData(Channel.RESIZE, data) if self._options.tty:
                return list(self._resizes.feed(data))
            case ChannelData() | None:
                return []
        if event.channel is Channel.STDIN and self._stdin_open:
            self._stdin_open = False
            return [StdinClosed()]
        return []

    def output(self, channel: Channel, data: bytes) -> Message | None:
        """Return the message for what the process wrote; None: the client did not ask for it."""
        if self._finished:
            raise FailedPrecondition("The exchange is over; nothing more can be said in it")
        wanted = {Channel.STDOUT: self._options.stdout, Channel.STDERR: self._options.stderr}
        return encode(self._protocol, channel, data) if wanted.get(channel) else None

    def finish(self, status: Status) -> Message | None:
        """Return the last message, the outcome; None: this protocol says nothing on success."""
        if self._finished:
            raise FailedPrecondition("The exchange has its outcome already")
        self._finished = True
        data = encode_status(status, as_json=self._protocol.json_status)
        return None if data is None else encode(self._protocol, Channel.ERROR, data)
