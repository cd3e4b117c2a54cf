"""The service over a real socket: streams, errors as codes, events, use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.support.fake_clock import FakeClock
from tests.unit.agent.agent_world import (
    CONTAINER,
    SANDBOX,
    FakeUsage,
    World,
    create_request,
    run_request,
)
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider._pb import sandbox_pb2_grpc as rpc
from vk_provider.agent.context import Context
from vk_provider.agent.events import KEPT, EventHub
from vk_provider.agent.metering import Metering
from vk_provider.agent.ports import MachinesInfo
from vk_provider.agent.server import SERVER_OPTIONS, SandboxServer


@asynccontextmanager
async def served(world: World) -> AsyncIterator[tuple[Any, Context]]:
    """Yield a stub of a served agent whose container runs."""
    async with world.agent() as context:
        metering = Metering(context)
        context.spawn(metering.run(), "metering")
        info = MachinesInfo("QEMU 7", "tcg", "a test", "6.1")
        server = grpc.aio.server(options=SERVER_OPTIONS)
        rpc.add_SandboxServiceServicer_to_server(SandboxServer(context, info, metering), server)
        address = f"unix:{world.directory}/agent.sock"
        server.add_insecure_port(address)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                stub: Any = rpc.SandboxServiceStub(channel)
                await stub.RunSandbox(run_request())
                await stub.CreateContainer(create_request())
                await stub.StartContainer(pb.StartContainerRequest(container_id=CONTAINER))
                yield stub, context
        finally:
            await server.stop(None)


async def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.details()
    code: grpc.StatusCode = caught.value.code()
    return code


async def test_exec_carries_both_ways_and_brings_the_code(world: World) -> None:
    async with served(world) as (stub, _):
        call = stub.Exec()
        start = pb.ExecStart(container_id=CONTAINER, command=["cat"], stdin=True, stdout=True)
        await call.write(pb.ExecRequest(start=start))
        await call.write(pb.ExecRequest(stdin=b"x" * 20_000))
        await call.write(pb.ExecRequest(stdin_eof=True))
        answers = [answer async for answer in call]
    assert answers[0].started
    assert b"".join(a.stdout for a in answers) == b"x" * 20_000
    assert answers[-1].exit.code == 3


async def test_a_caller_that_only_half_closes_gets_its_answer(world: World) -> None:
    async with served(world) as (stub, _):
        call = stub.Exec()
        start = pb.ExecStart(container_id=CONTAINER, command=["cat"], stdout=True)
        await call.write(pb.ExecRequest(start=start))
        await call.done_writing()
        answers = [answer async for answer in call]
    assert answers[-1].exit.code == 3


async def test_an_exec_that_takes_too_long_is_ended(world: World) -> None:
    async with served(world) as (stub, _):
        call = stub.Exec()
        start = pb.ExecStart(container_id=CONTAINER, command=["cat"], timeout_s=0.01)
        await call.write(pb.ExecRequest(start=start))
        answers = [answer async for answer in call]
    assert answers[-1].exit.timed_out


async def test_an_exec_that_takes_too_long_is_ended_though_its_output_is_not_read(
    world: World,
) -> None:
    start = pb.ExecStart(
        container_id=CONTAINER, command=["cat"], stdin=True, stdout=True, timeout_s=0.5
    )

    async def requests() -> AsyncIterator[pb.ExecRequest]:
        yield pb.ExecRequest(start=start)
        for _ in range(500):  # more than the windows of all streams on the way
            yield pb.ExecRequest(stdin=b"x" * 60_000)

    async with served(world) as (stub, _):
        call = stub.Exec(requests())
        await asyncio.sleep(1)  # nobody reads before its time is over
        answers = [answer async for answer in call]
    assert answers[-1].exit.timed_out


async def test_errors_are_codes_with_sentences(world: World) -> None:
    async with served(world) as (stub, _):
        codes = [
            await refused(stub.StopSandbox(pb.StopSandboxRequest(sandbox_id="no"))),
            await refused(stub.StartContainer(pb.StartContainerRequest(container_id="no"))),
            await refused(stub.RunSandbox(pb.RunSandboxRequest(sandbox_id="no"))),
            await refused(stub.RemoveImage(pb.RemoveImageRequest(image="test/busybox:1"))),
            await refused(
                stub.CreateContainer(create_request("d" * 64, image="nope", image_ref="nope"))
            ),
        ]
    assert codes == [
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
    ]


async def test_a_stream_without_its_beginning_is_refused(world: World) -> None:
    async with served(world) as (stub, _):
        for call in (stub.Exec(), stub.Attach(), stub.PortForward()):
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_logs_follow_until_the_end(world: World) -> None:
    async with served(world) as (stub, _):
        call = stub.ReadLogs(pb.ReadLogsRequest(container_id=CONTAINER, follow=True))
        await world.guest.say(CONTAINER, "one\n")
        answers = aiter(call)
        data = (await anext(answers)).data
        await world.guest.say(CONTAINER, "two\n")
        await world.guest.end(CONTAINER, 0)
        data += b"".join([answer.data async for answer in answers])
    assert data == b"one\ntwo\n"


async def test_use_is_sampled_and_recorded(world: World) -> None:
    async with served(world) as (stub, context):
        async for snapshot in stub.WatchUsage(pb.WatchUsageRequest()):
            used = snapshot.sandboxes[0]
            if used.pod_counters.cpu_ns:
                break
        assert used.pod_counters.cpu_ns == 1_500_000_000
        assert used.vm_cpu_ns == 5_000_000_000
        assert snapshot.host_memory_total_bytes > 0
        record = (await stub.ListUsageRecords(pb.ListUsageRecordsRequest())).records[0]
        assert record.cpu_ns == 1_500_000_000
        assert context.sandbox(SANDBOX).record.started_at_ns == record.started_at_ns


async def test_figures_hold_while_a_vm_idles_and_are_new_once_it_has_run(world: World) -> None:
    async with served(world) as (stub, _):
        snapshots = aiter(stub.WatchUsage(pb.WatchUsageRequest()))

        async def next_use() -> pb.SandboxUsage:
            snapshot: pb.UsageSnapshot = await anext(snapshots)
            return snapshot.sandboxes[0]

        while not (first := await next_use()).pod_counters.cpu_ns:
            pass
        world.guest.cpu_usec = 2_500_000
        idle = await next_use()
        assert idle.pod_counters == first.pod_counters
        assert idle.time_ns > first.time_ns
        (vm,) = world.machines.vms.values()
        vm.used = FakeUsage(cpu_ns=6_000_000_000)
        while (busy := await next_use()).pod_counters.cpu_ns == 1_500_000_000:
            pass
    assert (busy.pod_counters.cpu_ns, busy.vm_cpu_ns) == (2_500_000_000, 6_000_000_000)


async def test_events_go_on_where_a_watcher_stopped() -> None:
    hub = EventHub(FakeClock())
    first = hub.seq
    hub.sandbox_changed("s", "u")
    hub.container_changed("s", "c", "u")
    watch = hub.watch(first)
    assert [(await anext(watch)).kind for _ in range(2)] == [
        pb.Event.SANDBOX_CHANGED,
        pb.Event.CONTAINER_CHANGED,
    ]
    await watch.aclose()


@pytest.mark.parametrize("after", [0, -KEPT, 2**62])
async def test_a_watcher_that_missed_some_is_told(after: int) -> None:
    hub = EventHub(FakeClock())
    for _ in range(KEPT + 10):
        hub.host_changed()
    watch = hub.watch(after)
    event = await anext(watch)
    assert (event.kind, event.seq) == (pb.Event.RESYNC, hub.seq)
    hub.host_changed()
    assert (await anext(watch)).kind == pb.Event.HOST_CHANGED
    await watch.aclose()
