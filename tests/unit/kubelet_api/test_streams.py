import asyncio
from typing import Any

import orjson
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError

from tests.support.kubelet_api_bed import Bed, kubelet_api
from vk_provider.common.errors import Unavailable
from vk_provider.kubelet_api.exchange import StreamLimits

V5 = ("v5.channel.k8s.io",)
EXEC = "/exec/default/web/app"


async def outcome(socket: ClientWebSocketResponse) -> tuple[dict[int, bytes], dict[str, Any]]:
    """Read to the end; return what came on each channel, and the status."""
    channels: dict[int, bytes] = {1: b"", 2: b"", 3: b""}
    async for message in socket:
        assert message.type is WSMsgType.BINARY
        channels[message.data[0]] += message.data[1:]
    return channels, orjson.loads(channels[3]) if channels[3] else {}


def connect(bed: Bed, query: str, path: str = EXEC, protocols: tuple[str, ...] = V5) -> Any:
    return bed.client.ws_connect(f"{path}?{query}", protocols=protocols)


class TestExec:
    async def test_output_and_success(self) -> None:
        async with kubelet_api() as bed, connect(bed, "command=ls&output=1&error=1") as socket:
            assert socket.protocol == V5[0]
            assert (await socket.receive()).data == b"\x01"
            channels, status = await outcome(socket)
            assert (channels[1], channels[2]) == (b"file\n", b"warning\n")
            assert status["status"] == "Success"

    async def test_an_exit_code(self) -> None:
        async with kubelet_api() as bed, connect(bed, "command=false&output=1") as socket:
            _, status = await outcome(socket)
            assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]

    async def test_a_command_that_is_not_there(self) -> None:
        async with kubelet_api() as bed, connect(bed, "command=nope&output=1") as socket:
            _, status = await outcome(socket)
            assert "executable file not found" in status["message"]

    async def test_stdin_goes_in_and_comes_back_until_it_is_closed(self) -> None:
        query = "command=cat&input=1&output=1"
        payload = bytes(range(256)) * 1024
        async with kubelet_api() as bed, connect(bed, query) as socket:
            await socket.send_bytes(b"\x00" + payload)
            await socket.send_bytes(b"\xff\x00")
            channels, status = await outcome(socket)
            assert (channels[1], status["status"]) == (payload, "Success")

    async def test_an_older_client_may_speak_base64(self) -> None:
        protocols = ("v4.base64.channel.k8s.io",)
        query = "command=ls&output=1"
        async with kubelet_api() as bed, connect(bed, query, protocols=protocols) as socket:
            texts = [message.data async for message in socket]
            assert texts[:2] == ["1", "1ZmlsZQo="]
            assert texts[2].startswith("3")

    async def test_a_client_that_leaves_ends_the_command(self) -> None:
        async with kubelet_api() as bed:
            gone = asyncio.Event()
            play = bed.runtime.exec

            async def watched(requests: Any) -> Any:
                try:
                    async for response in play(requests):
                        yield response
                finally:
                    gone.set()

            bed.runtime.exec = watched  # type: ignore[method-assign]
            socket = await connect(bed, "command=sleep&command=60&output=1")
            await socket.receive()
            await socket.close()
            await gone.wait()

    async def test_a_backend_that_is_away_is_an_outcome(self) -> None:
        async with kubelet_api() as bed:
            bed.runtime.fail("exec", Unavailable("the agent is away; try again"))
            async with connect(bed, "command=ls&output=1") as socket:
                _, status = await outcome(socket)
                assert status["message"] == (
                    "Internal error occurred: error executing command in container: "
                    "the agent is away; try again"
                )

    async def test_nonsense_is_answered_and_ends_the_stream(self) -> None:
        async with kubelet_api() as bed, connect(bed, "command=cat&input=1&output=1") as socket:
            await socket.send_bytes(b"\xff")
            _, status = await outcome(socket)
            assert "close signal" in status["message"]

    async def test_while_stdin_waits_pongs_tell_that_the_node_lives(self) -> None:
        limits = StreamLimits(keep_alive_s=0.001)
        async with kubelet_api(limits=limits) as bed:
            gate = bed.runtime.hold("exec")
            socket = await bed.client.ws_connect(
                f"{EXEC}?command=cat&input=1&output=1", protocols=V5, autoping=False
            )
            for _ in range(4):
                await socket.send_bytes(b"\x00x")
            kinds = [(await socket.receive()).type for _ in range(3)]
            assert kinds == [WSMsgType.BINARY, WSMsgType.PONG, WSMsgType.PONG]
            gate.set()
            await socket.close()

    async def test_silence_has_an_end(self) -> None:
        async with (
            kubelet_api(limits=StreamLimits(idle_s=0.01)) as bed,
            connect(bed, "command=sleep&command=60&output=1") as socket,
        ):
            _, status = await outcome(socket)
            assert "nothing was said" in status["message"]

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/exec/default/web/app?command=ls", 400),
            ("/exec/default/web/app?output=1", 400),
            ("/exec/default/nope/app?command=ls&output=1", 404),
            ("/exec/default/web/other-uid/app?command=ls&output=1", 404),
            ("/exec/default/web/nope?command=ls&output=1", 500),
            ("/exec/default/web/done?command=ls&output=1", 500),
        ],
    )
    async def test_mistakes_are_answered_before_the_upgrade(self, path: str, status: int) -> None:
        async with kubelet_api() as bed:
            with pytest.raises(WSServerHandshakeError) as caught:
                await bed.client.ws_connect(path, protocols=V5)
            assert caught.value.status == status

    async def test_unknown_subprotocols_are_refused(self) -> None:
        async with kubelet_api() as bed:
            with pytest.raises(WSServerHandshakeError) as caught:
                await connect(bed, "command=ls&output=1", protocols=("other",))
            assert caught.value.status == 403

    async def test_plain_requests_are_told_to_upgrade(self) -> None:
        async with kubelet_api() as bed:
            response = await bed.client.post(f"{EXEC}?command=ls&output=1")
            assert (response.status, await response.text()) == (400, "Upgrade request required")


class TestAttach:
    async def test_takes_part_in_the_containers_stdio(self) -> None:
        query = "input=1&output=1&error=1"
        async with (
            kubelet_api() as bed,
            connect(bed, query, path="/attach/default/web/app") as socket,
        ):
            await socket.receive()
            assert (await socket.receive()).data == b"\x01one\ntwo\nthree\n"
            await socket.send_bytes(b"\x00hi")
            assert (await socket.receive()).data == b"\x01hi"


class TestRun:
    async def test_returns_what_was_written(self) -> None:
        async with kubelet_api() as bed:
            response = await bed.client.post("/run/default/web/u1/app?cmd=ls")
            assert (response.status, await response.read()) == (200, b"file\nwarning\n")

    @pytest.mark.parametrize(("cmd", "words"), [("false", "exited with 3"), ("no", "not found")])
    async def test_failures_are_errors(self, cmd: str, words: str) -> None:
        async with kubelet_api() as bed:
            response = await bed.client.post(f"/run/default/web/app?cmd={cmd}")
            assert response.status == 500
            assert words in await response.text()
