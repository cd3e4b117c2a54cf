"""TCP and gRPC probes against real local servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from tests.support.podspecs import container
from vk_provider.pods.probes.model import Answer
from vk_provider.pods.probes.socket_checks import check_grpc, check_tcp

TIMEOUT_S = 30


async def test_an_open_port_is_a_success_and_a_closed_one_is_not() -> None:
    accepted = asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        found = await check_tcp({"port": port}, container(), "127.0.0.1", TIMEOUT_S)
        assert found == Answer(True)
        await accepted.wait()
    found = await check_tcp({"port": port}, container(), "127.0.0.1", TIMEOUT_S)
    assert found == Answer(False, f"dial tcp 127.0.0.1:{port}: connect: connection refused")


@pytest.mark.parametrize("host", ["a b", "x" * 300, "é" * 70 + ".test", "::::", "a..b"])
async def test_hosts_that_are_none_are_failures(host: str) -> None:
    found = await check_tcp({"port": 1, "host": host}, container(), "127.0.0.1", 5)
    assert not found.success
    assert found.output.startswith("dial tcp")


class Health:
    """A health service, written by hand as far as a probe needs it."""

    def __init__(self) -> None:
        self.state = 1
        self.asked: list[str] = []
        self.code: grpc.StatusCode | None = None
        self.port = 0

    async def check(
        self, request: StringValue, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Int32Value:
        self.asked.append(request.value)
        if self.code is not None:
            await context.abort(self.code, "as told")
        return Int32Value(value=self.state)


@pytest.fixture
async def health() -> AsyncIterator[Health]:
    service = Health()
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        service.check,
        request_deserializer=StringValue.FromString,
        response_serializer=Int32Value.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
    service.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield service
    await server.stop(None)


async def ask(health: Health, **action: Any) -> Answer:
    return await check_grpc({"port": health.port} | action, "127.0.0.1", TIMEOUT_S)


async def test_a_serving_service_is_healthy(health: Health) -> None:
    assert await ask(health, service="db") == Answer(True, "service healthy")
    assert health.asked == ["db"]


@pytest.mark.parametrize(
    ("state", "name"), [(0, "UNKNOWN"), (2, "NOT_SERVING"), (3, "SERVICE_UNKNOWN"), (9, "9")]
)
async def test_any_other_state_is_unhealthy(health: Health, state: int, name: str) -> None:
    health.state = state
    assert await ask(health) == Answer(False, f'service unhealthy (responded with "{name}")')


@pytest.mark.parametrize(
    ("code", "start"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, "error: this server does not implement the grpc health"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "timeout: health rpc did not complete within"),
        (grpc.StatusCode.NOT_FOUND, "error: health rpc probe failed: NOT_FOUND: as told"),
    ],
)
async def test_errors_are_failures(health: Health, code: grpc.StatusCode, start: str) -> None:
    health.code = code
    found = await ask(health)
    assert not found.success
    assert found.output.startswith(start)


async def test_nobody_listening_is_a_failure() -> None:
    found = await check_grpc({"port": 1}, "127.0.0.1", 0.05)
    assert found == Answer(False, 'timeout: failed to connect service "127.0.0.1:1" within 0.05s')
