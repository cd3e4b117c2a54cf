"""The connection to a guest agent, with a played one behind the socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from vk_provider._pb import guest_pb2 as pb
from vk_provider.agent.guest import GuestConnection
from vk_provider.agent.guest.connection import _MAX_STREAM_BYTES
from vk_provider.common.errors import DeadlineExceeded, FailedPrecondition, Internal


class PlayedGuest:
    def __init__(self) -> None:
        self.version = 1
        self.silent = False
        self.length = 0

    def handler(self) -> grpc.GenericRpcHandler:
        hello = grpc.unary_unary_rpc_method_handler(
            self.hello, pb.HelloRequest.FromString, pb.HelloResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler(
            "vk_provider.guest.v1.GuestService", {"Hello": hello}
        )

    async def hello(self, request: pb.HelloRequest, _: object) -> pb.HelloResponse:
        if self.silent:
            await asyncio.Event().wait()
        assert request.protocol_version == 1
        return pb.HelloResponse(protocol_version=self.version, guest_version="x" * self.length)


@asynccontextmanager
async def connected(tmp_path: Path, guest: PlayedGuest) -> AsyncIterator[GuestConnection]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((guest.handler(),))
    for port in ("control", "bulk"):
        server.add_insecure_port(f"unix:{tmp_path / port}")
    await server.start()
    connection = GuestConnection(f"unix:{tmp_path / 'control'}", f"unix:{tmp_path / 'bulk'}")
    try:
        yield connection
    finally:
        await connection.close()
        await server.stop(None)


async def test_a_guest_that_answers_is_told_of(tmp_path: Path) -> None:
    async with connected(tmp_path, PlayedGuest()) as connection:
        connection.connect()
        assert (await connection.hello(10)).protocol_version == 1
        await connection.bulk.Hello(pb.HelloRequest(protocol_version=1), timeout=10)


async def test_a_guest_of_another_contract_is_refused(tmp_path: Path) -> None:
    guest = PlayedGuest()
    guest.version = 2
    async with connected(tmp_path, guest) as connection:
        with pytest.raises(FailedPrecondition, match="speaks version 2"):
            await connection.hello(10)


async def test_a_silent_guest_misses_the_deadline(tmp_path: Path) -> None:
    guest = PlayedGuest()
    guest.silent = True
    async with connected(tmp_path, guest) as connection:
        with pytest.raises(DeadlineExceeded, match="did not answer Hello"):
            await connection.hello(0.05)


async def test_a_guest_cannot_fill_the_agents_memory(tmp_path: Path) -> None:
    guest = PlayedGuest()
    guest.length = 5 << 20
    async with connected(tmp_path, guest) as connection:
        with pytest.raises(Internal, match="RESOURCE_EXHAUSTED"):
            await connection.hello(10)


def test_each_bound_is_that_of_a_stream_of_the_contract() -> None:
    calls = pb.DESCRIPTOR.services_by_name["GuestService"].methods_by_name
    assert all(calls[name].server_streaming for name in _MAX_STREAM_BYTES)
