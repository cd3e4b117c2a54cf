"""Ids, and commands run to their end."""

from __future__ import annotations

import pytest

from tests.support.fake_clock import FakeClock
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from vk_provider.runtime.exec_sync import exec_sync
from vk_provider.runtime.fake import FakeRuntime
from vk_provider.runtime.fake_records import Executed, FakeImage, Program
from vk_provider.runtime.grpc_client import AgentClient
from vk_provider.runtime.ids import (
    container_id,
    parse_status_container_id,
    sandbox_id,
    status_container_id,
)


def test_ids_are_a_function_of_what_they_name() -> None:
    one = sandbox_id("uid", 0)
    assert len(one) == 32 and one == sandbox_id("uid", 0) != sandbox_id("uid", 1)
    run = container_id(one, "app", 0)
    assert len(run) == 64 and run != container_id(one, "app", 1)
    assert run != container_id(sandbox_id("uid", 1), "app", 0)


def test_ids_in_a_status() -> None:
    assert parse_status_container_id(status_container_id("abc")) == "abc"
    assert status_container_id("") == ""
    assert parse_status_container_id("containerd://abc") == ""


async def _running(runtime: FakeRuntime, execs: dict[tuple[str, ...], Executed]) -> str:
    runtime.registry["i:1"] = FakeImage()
    runtime.program = lambda _: Program(execs=execs)
    await runtime.run_sandbox(pb.RunSandboxRequest(sandbox_id="s"))
    async for _ in runtime.pull_image("i:1"):
        pass
    config = pb.ContainerConfig(container_id="c", name="c", image_ref=FakeImage().image_ref)
    await runtime.create_container(pb.CreateContainerRequest(sandbox_id="s", config=config))
    await runtime.start_container("c")
    return "c"


async def test_output_beyond_the_limit_is_dropped() -> None:
    async with FakeRuntime(FakeClock()) as runtime:
        id_ = await _running(runtime, {("x",): Executed(2, b"o" * 100, b"e" * 100)})
        result = await exec_sync(runtime, id_, ["x"], limit_bytes=10)
        assert (result.stdout, result.stderr, result.code) == (b"o" * 10, b"e" * 10, 2)


async def test_a_command_that_takes_too_long_is_ended() -> None:
    async with FakeRuntime(clock := FakeClock()) as runtime:
        id_ = await _running(runtime, {("x",): Executed(run_s=100)})
        import asyncio

        async with asyncio.TaskGroup() as group:
            task = group.create_task(_expect_timeout(runtime, id_), name="exec")
            await clock.advance(3)
        assert task.done()


async def _expect_timeout(runtime: FakeRuntime, id_: str) -> None:
    with pytest.raises(DeadlineExceeded):
        await exec_sync(runtime, id_, ["x"], timeout_s=2)


async def test_a_container_that_ended_takes_no_command() -> None:
    async with FakeRuntime(FakeClock()) as runtime:
        id_ = await _running(runtime, {})
        runtime.exit(id_, 0)
        with pytest.raises(FailedPrecondition):
            await exec_sync(runtime, id_, ["x"])


async def test_an_agent_that_is_not_there_is_unavailable() -> None:
    async with AgentClient("unix:/nonexistent/agent.sock") as client:
        with pytest.raises(Unavailable, match=r"unix:/nonexistent/agent\.sock"):
            await client.host_info()
        with pytest.raises(Unavailable):
            async for _ in client.watch_events():
                pass
