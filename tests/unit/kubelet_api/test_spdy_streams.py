import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import orjson
import pytest
from aiohttp import WSMsgType, WSServerHandshakeError

from tests.support.kubelet_api_bed import Bed, kubelet_api
from tests.support.spdy_client import SpdyClient
from vk_provider.common.errors import Unavailable
from vk_provider.kubelet_api.exchange import StreamLimits


class Connection:
    """A raw HTTP connection that was upgraded to SPDY."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.spdy = SpdyClient()
        self._reader = reader
        self._writer = writer

    async def open(self, **headers: str) -> int:
        stream_id, frame = self.spdy.open(fin=False, **headers)
        await self.write(frame)
        return stream_id

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def until_closed(self) -> None:
        while data := await self._reader.read(65536):
            self.spdy.receive(data)

    async def until(self, stream_id: int) -> None:
        """Read until a stream has ended or was reset."""
        while stream_id not in self.spdy.ended | self.spdy.resets.keys():
            self.spdy.receive(await self._reader.read(65536))


@asynccontextmanager
async def upgraded(
    bed: Bed, path: str, protocol: str = "v4.channel.k8s.io"
) -> AsyncGenerator[Connection, None]:
    server = bed.client.server
    reader, writer = await asyncio.open_connection(server.host, server.port)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n"
        f"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n"
        "Content-Length: 0\r\n\r\n"
    )
    writer.write(head.encode())
    try:
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert answer.startswith("HTTP/1.1 101 Switching Protocols"), answer
        assert f"X-Stream-Protocol-Version: {protocol}" in answer
        yield Connection(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


class TestExec:
    async def test_stdin_goes_in_and_comes_back(self) -> None:
        path = "/exec/default/web/app?command=cat&input=1&output=1"
        payload = bytes(range(256)) * 512
        async with kubelet_api() as bed, upgraded(bed, path) as connection:
            error = await connection.open(streamType="error")
            stdin = await connection.open(streamType="stdin")
            await connection.write(connection.spdy.send(stdin, payload, fin=True))
            stdout = await connection.open(streamType="stdout")
            await connection.until_closed()
            assert connection.spdy.replies == {error, stdin, stdout}
            assert connection.spdy.data[stdout] == payload
            assert orjson.loads(connection.spdy.data[error])["status"] == "Success"
            assert {stdout, error} <= connection.spdy.ended

    async def test_streams_that_were_not_asked_for_are_reset(self) -> None:
        path = "/exec/default/web/app?command=false&output=1"
        async with kubelet_api() as bed, upgraded(bed, path) as connection:
            stdin = await connection.open(streamType="stdin")
            error = await connection.open(streamType="error")
            twice = await connection.open(streamType="error")
            await connection.open(streamType="stdout")
            await connection.until_closed()
            assert connection.spdy.resets.keys() == {stdin, twice}
            status = orjson.loads(connection.spdy.data[error])
            assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]

    async def test_streams_that_never_come_end_the_connection(self) -> None:
        path = "/exec/default/web/app?command=ls&output=1"
        limits = StreamLimits(creation_s=0.01)
        async with kubelet_api(limits=limits) as bed, upgraded(bed, path) as connection:
            await connection.until_closed()
            assert connection.spdy.gone
            assert ("exec", "") not in bed.runtime.calls

    async def test_unknown_protocols_are_refused_with_the_known(self) -> None:
        async with kubelet_api() as bed:
            response = await bed.client.post(
                "/exec/default/web/app?command=ls&output=1",
                headers={
                    "Connection": "Upgrade",
                    "Upgrade": "SPDY/3.1",
                    "X-Stream-Protocol-Version": "v9",
                },
            )
            assert response.status == 403
            accepted = response.headers.getall("X-Accepted-Stream-Protocol-Versions")
            assert accepted[0] == "v4.channel.k8s.io"


PATH = "/portForward/default/web"
PROTOCOL = "portforward.k8s.io"


class TestPortForward:
    async def pair(self, connection: Connection, request: str, port: str = "80") -> tuple[int, int]:
        error = await connection.open(streamType="error", port=port, requestID=request)
        data = await connection.open(streamType="data", port=port, requestID=request)
        return error, data

    async def test_connections_side_by_side(self) -> None:
        async with kubelet_api() as bed, upgraded(bed, PATH, PROTOCOL) as connection:
            pairs = [await self.pair(connection, str(n)) for n in range(3)]
            for error, data in pairs:
                sent = f"hello {data}".encode()
                await connection.write(connection.spdy.send(data, sent, fin=True))
                await connection.until(data)
                await connection.until(error)
                assert connection.spdy.data[data] == sent
                assert connection.spdy.data[error] == b""

    async def test_without_request_ids_streams_pair_by_their_order(self) -> None:
        async with kubelet_api() as bed, upgraded(bed, PATH, PROTOCOL) as connection:
            await connection.open(streamType="error", port="80")
            data = await connection.open(streamType="data", port="80")
            await connection.write(connection.spdy.send(data, b"x", fin=True))
            await connection.until(data)
            assert connection.spdy.data[data] == b"x"

    async def test_a_failure_is_told_on_the_error_stream_of_its_own(self) -> None:
        async with kubelet_api() as bed, upgraded(bed, PATH, PROTOCOL) as connection:
            bed.runtime.fail("port_forward", Unavailable("connection refused"))
            error, data = await self.pair(connection, "0")
            await connection.until(error)
            await connection.until(data)
            told = connection.spdy.data[error].decode()
            assert told == "error forwarding port 80 to pod web_default, uid u1: connection refused"
            _, data = await self.pair(connection, "1")
            await connection.write(connection.spdy.send(data, b"x", fin=True))
            await connection.until(data)
            assert connection.spdy.data[data] == b"x"

    @pytest.mark.parametrize("port", ["", "0", "65536", "x", "-1", "+8"])
    async def test_what_is_no_port_is_reset(self, port: str) -> None:
        async with kubelet_api() as bed, upgraded(bed, PATH, PROTOCOL) as connection:
            stream = await connection.open(streamType="data", port=port, requestID="0")
            await connection.until(stream)
            assert stream in connection.spdy.resets

    async def test_half_a_pair_times_out(self) -> None:
        limits = StreamLimits(creation_s=0.01)
        async with (
            kubelet_api(limits=limits) as bed,
            upgraded(bed, PATH, PROTOCOL) as connection,
        ):
            error = await connection.open(streamType="error", port="80", requestID="7")
            await connection.until(error)
            assert connection.spdy.data[error] == b"(request=7) timed out waiting for streams"

    async def test_through_a_websocket(self) -> None:
        protocol = f"SPDY/3.1+{PROTOCOL}"
        async with (
            kubelet_api() as bed,
            bed.client.ws_connect(PATH, protocols=(protocol,)) as socket,
        ):
            assert socket.protocol == protocol
            spdy = SpdyClient()
            _, one = spdy.open(streamType="error", port="80", requestID="0")
            data, two = spdy.open(streamType="data", port="80", requestID="0")
            await socket.send_bytes(one + two[:5])
            await socket.send_bytes(two[5:] + spdy.send(data, b"tunnelled", fin=True))
            while data not in spdy.ended:
                message = await socket.receive()
                assert message.type is WSMsgType.BINARY
                spdy.receive(message.data)
            assert spdy.data[data] == b"tunnelled"

    async def test_plain_requests_are_told_to_upgrade(self) -> None:
        async with kubelet_api() as bed:
            response = await bed.client.post(PATH)
            assert (response.status, await response.text()) == (400, "Upgrade request required")

    async def test_other_websockets_are_told_what_to_speak(self) -> None:
        async with kubelet_api() as bed:
            with pytest.raises(WSServerHandshakeError) as caught:
                await bed.client.ws_connect(PATH, protocols=("v4.channel.k8s.io",))
            assert caught.value.status == 403
