"""A remote command's client at the other end of a SPDY connection.

Each of stdin, stdout, stderr, error and resize is a stream of its own, told by its `streamType`
(`k8s.io/cri-streaming/pkg/streaming/remotecommand/httpstream.go`).
"""

from __future__ import annotations

import asyncio

from vk_provider.kubelet_api.exchange import ClientGone
from vk_provider.kubelet_api.spdy_link import SpdyLink
from vk_provider.streaming.channels import Channel
from vk_provider.streaming.remotecommand import (
    Input,
    ResizeDecoder,
    Status,
    Stdin,
    StdinClosed,
    StreamOptions,
    encode_status,
)
from vk_provider.streaming.spdy_connection import (
    SpdyEvent,
    StreamData,
    StreamEnded,
    StreamOpened,
    StreamReset,
)

V4 = "v4.channel.k8s.io"
V3 = "v3.channel.k8s.io"
PROTOCOLS = (V4, V3, "v2.channel.k8s.io", "channel.k8s.io")

_CHANNELS = {
    "stdin": Channel.STDIN,
    "stdout": Channel.STDOUT,
    "stderr": Channel.STDERR,
    "error": Channel.ERROR,
    "resize": Channel.RESIZE,
}


class SpdyExchange:
    """Carries one exec or attach."""

    def __init__(self, link: SpdyLink, options: StreamOptions, protocol: str) -> None:
        self._link = link
        self._json_status = protocol == V4
        self._wanted = {Channel.ERROR}
        for channel, asked in (
            (Channel.STDIN, options.stdin),
            (Channel.STDOUT, options.stdout),
            (Channel.STDERR, options.stderr),
            (Channel.RESIZE, options.tty and protocol in {V4, V3}),
        ):
            if asked:
                self._wanted.add(channel)
        self._ids: dict[Channel, int] = {}
        self._channels: dict[int, Channel] = {}
        self._early: list[Input] = []
        self._resizes = ResizeDecoder()

    async def open(self, limit_s: float) -> None:
        """Wait until the client has made its streams; raises ClientGone where it does not."""
        try:
            async with asyncio.timeout(limit_s):
                while self._wanted - self._ids.keys():
                    for event in await self._link.receive():
                        self._early += self._event(event)
                    await self._link.flush()
        except TimeoutError as exc:
            await self._link.close()
            missing = ", ".join(sorted(c.name.lower() for c in self._wanted - self._ids.keys()))
            raise ClientGone(f"The client made no stream for {missing} in {limit_s:g} s") from exc

    async def receive(self) -> list[Input]:
        """Return what comes next."""
        if self._early:
            early, self._early = self._early, []
            return early
        found = [item for event in await self._link.receive() for item in self._event(event)]
        await self._link.flush()
        return found

    async def keep_alive(self) -> None:
        """Do nothing: a SPDY client needs no sign of life."""

    async def send(self, channel: Channel, data: bytes) -> None:
        """Send what the process wrote; what the client asked not for, or gave up, is dropped."""
        stream_id = self._ids.get(channel)
        if stream_id is not None and self._link.connection.is_open(stream_id):
            self._link.connection.send(stream_id, data)
            await self._link.flush()

    async def finish(self, status: Status) -> None:
        """Send the outcome, end all streams and close."""
        data = encode_status(status, as_json=self._json_status)
        if data is not None:
            await self.send(Channel.ERROR, data)
        for stream_id in self._ids.values():
            self._link.connection.end(stream_id)
        await self._link.close()

    def _event(self, event: SpdyEvent) -> list[Input]:
        match event:
            case StreamOpened(stream_id, headers):
                self._opened(stream_id, _CHANNELS.get(headers.get("streamtype", "")))
            case StreamData(stream_id, data):
                match self._channels.get(stream_id):
                    case Channel.STDIN:
                        return [Stdin(data)]
                    case Channel.RESIZE:
                        return list(self._resizes.feed(data))
            case StreamEnded(stream_id) | StreamReset(stream_id):
                if self._channels.get(stream_id) is Channel.STDIN:
                    return [StdinClosed()]
        return []

    def _opened(self, stream_id: int, channel: Channel | None) -> None:
        if channel is None or channel not in self._wanted or channel in self._ids:
            self._link.connection.reset(stream_id)
            return
        self._ids[channel] = stream_id
        self._channels[stream_id] = channel
        self._link.connection.accept(stream_id)
