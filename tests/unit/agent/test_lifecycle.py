"""Sandboxes and containers from their start to their end, on a fake guest behind a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import orjson
import pytest

from tests.unit.agent.agent_world import (
    CONTAINER,
    SANDBOX,
    FakeExit,
    World,
    create_request,
    run_request,
    unavailable,
)
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent import exits
from vk_provider.agent.adoption import adopt_all
from vk_provider.agent.containers import (
    create_container,
    remove_container,
    start_container,
    stop_container,
)
from vk_provider.agent.context import Context
from vk_provider.agent.records import Phase
from vk_provider.agent.sandboxes import list_sandboxes, remove_sandbox, run_sandbox, stop_sandbox
from vk_provider.common.errors import (
    AlreadyExists,
    FailedPrecondition,
    Invalid,
    NotFound,
    Unavailable,
    VkError,
)


async def until(holds: Callable[[], object]) -> None:
    """Let other tasks run until that holds."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def running(context: Context) -> None:
    await run_sandbox(context, run_request())
    await create_container(context, create_request())
    await start_container(context, CONTAINER)


async def exited(context: Context) -> pb.ContainerStatus:
    container = context.container(CONTAINER)
    await container.exited.wait()
    return container.record.status


async def test_a_sandbox_starts_with_its_disk_its_name_and_its_volumes(world: World) -> None:
    volume = pb.Volume(name="v", files=pb.FilesVolume(files=[pb.File(path="a", data=b"x")]))
    async with world.agent() as context:
        status = await run_sandbox(context, run_request(volumes=[volume]))
    assert status.state == pb.SANDBOX_READY
    assert status.ips == ["10.0.0.2"]
    assert world.guest.configured is not None
    assert world.guest.configured.hostname == "web"
    assert len(world.guest.configured.entropy) >= 64
    assert "mount 0 scratch" in world.guest.calls
    assert world.guest.volumes["v"].files.files[0].data == b"x"
    assert {p.name for p in status.phases} >= {"network", "scratch", "vm", "configure", "volumes"}


async def test_a_repeated_start_is_one_start(world: World) -> None:
    async with world.agent() as context:
        first, second = await asyncio.gather(
            run_sandbox(context, run_request()), run_sandbox(context, run_request())
        )
        assert first == second
        assert world.guest.calls.count("configure") == 1
        with pytest.raises(AlreadyExists):
            await run_sandbox(context, run_request(attempt=1))


async def test_a_failed_start_leaves_nothing_and_can_be_tried_again(world: World) -> None:
    world.machines.error = unavailable()
    async with world.agent() as context:
        with pytest.raises(Unavailable, match="a test says no"):
            await run_sandbox(context, run_request())
        assert list_sandboxes(context, "", "").sandboxes == []
        assert world.network.attached == set()
        assert context.store.sandboxes() == []
        assert context.store.usage() == []
        world.machines.error = None
        assert (await run_sandbox(context, run_request())).state == pb.SANDBOX_READY


async def test_a_stop_does_not_wait_for_a_start_that_hangs(world: World) -> None:
    world.guest.hang.clear()
    async with world.agent() as context, asyncio.TaskGroup() as group:
        start = group.create_task(_refused(context))
        await until(lambda: "configure" in world.guest.calls)
        await stop_sandbox(context, SANDBOX)
        await start
        assert world.network.attached == set()
        world.guest.hang.set()


async def test_a_stop_while_a_start_fails_is_the_end_of_both(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    undoing, undone = asyncio.Event(), asyncio.Event()

    async def start(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            undoing.set()
            while not undone.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await undone.wait()

    async def attach(*_: object) -> None:
        raise unavailable()

    monkeypatch.setattr(world.machines, "start", start)
    monkeypatch.setattr(world.network, "attach", attach)
    async with world.agent() as context, asyncio.TaskGroup() as group:
        starting = group.create_task(_refused(context, Unavailable, "a test says no"))
        await undoing.wait()
        stopping = group.create_task(stop_sandbox(context, SANDBOX))
        await until(lambda: context.sandbox(SANDBOX).ending is not None)
        for _ in range(10):
            await asyncio.sleep(0)
        undone.set()
        async with asyncio.timeout(10):
            await asyncio.gather(starting, stopping)
        assert context.sandbox(SANDBOX).record.status.state == pb.SANDBOX_NOT_READY


async def test_a_user_is_not_free_while_his_vm_may_be_there(world: World) -> None:
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        record = context.sandbox(SANDBOX).record
        record.enter(Phase.REMOVING)
        assert context.free_uid() != record.uid


async def _refused(
    context: Context,
    kind: type[VkError] = FailedPrecondition,
    why: str = "does not start again",
) -> None:
    with pytest.raises(kind, match=why):
        await run_sandbox(context, run_request())


async def test_a_container_runs_logs_and_ends_with_its_log_complete(world: World) -> None:
    async with world.agent() as context:
        await running(context)
        assert context.container(CONTAINER).record.status.state == pb.CONTAINER_RUNNING
        await world.guest.say(CONTAINER, "hello\n")
        await world.guest.say(CONTAINER, "oops\n", stderr=True)
        await world.guest.end(CONTAINER, 3, termination_message=b"bye")
        status = await exited(context)
        log = context.container(CONTAINER).log_path.read_text()
    assert (status.exit_code, status.reason, status.termination_message) == (3, "Error", b"bye")
    assert status.image_digest.startswith("test/busybox@")
    assert (status.run_as_user, list(status.supplemental_groups)) == (1000, [1000, 2000])
    assert [line.split(" ", 1)[1] for line in log.splitlines()] == [
        "stdout F hello",
        "stderr F oops",
    ]


async def test_a_command_that_cannot_run_is_a_status(world: World) -> None:
    world.guest.start_error = 'exec: "nope": executable file not found in $PATH'
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        await create_container(context, create_request(command=["nope"]))
        status = await start_container(context, CONTAINER)
    assert (status.state, status.reason, status.exit_code) == (
        pb.CONTAINER_EXITED,
        "StartError",
        128,
    )
    assert "nope" in status.message


async def test_a_shorter_grace_shortens_the_first(world: World) -> None:
    world.guest.ends_on_term = False
    async with world.agent() as context, asyncio.TaskGroup() as group:
        await running(context)
        first = group.create_task(stop_container(context, CONTAINER, 3600, ""))
        await until(lambda: world.guest.containers[CONTAINER].signals)
        status = await stop_container(context, CONTAINER, 0, "")
        assert status.exit_code == 137
        assert (await first).exit_code == 137
        assert world.guest.containers[CONTAINER].signals[:2] == [15, 9]


async def test_the_end_of_a_vm_ends_its_containers_with_the_reason(world: World) -> None:
    async with world.agent() as context:
        await running(context)
        await world.guest.say(CONTAINER, "last words\n")
        world.machines.vms[SANDBOX].ended.set_result(FakeExit(-9, "QEMU was ended by SIGKILL"))
        status = await exited(context)
        assert status.exit_code == 137
        assert "QEMU was ended by SIGKILL" in status.message
        assert "last words" in context.container(CONTAINER).log_path.read_text()
        await stop_sandbox(context, SANDBOX)
        sandbox = list_sandboxes(context, SANDBOX, "").sandboxes[0]
        assert (sandbox.state, sandbox.reason) == (pb.SANDBOX_NOT_READY, "VMExited")
        assert world.network.attached == set()


async def test_removal_takes_every_trace(world: World) -> None:
    async with world.agent() as context:
        await running(context)
        log = context.container(CONTAINER).log_path
        with pytest.raises(FailedPrecondition, match="stop it first"):
            await remove_container(context, CONTAINER)
        await remove_sandbox(context, SANDBOX)
        assert not log.exists()
        assert list_sandboxes(context, "", "").sandboxes == []
        assert context.store.sandboxes() == []
        assert len(context.store.usage()) == 1
        with pytest.raises(NotFound):
            await stop_sandbox(context, SANDBOX)
    assert not world.settings.machine_state_dir(SANDBOX).exists()
    assert not world.settings.machine_run_dir(SANDBOX).exists()


async def test_a_network_that_refuses_is_tried_again_by_the_next_call(world: World) -> None:
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        world.network.error = unavailable()
        with pytest.raises(Unavailable):
            await stop_sandbox(context, SANDBOX)
        world.network.error = None
        await stop_sandbox(context, SANDBOX)
        assert world.network.attached == set()


@pytest.mark.parametrize(
    "request_",
    [
        pb.RunSandboxRequest(sandbox_id="../../etc"),
        pb.RunSandboxRequest(sandbox_id=SANDBOX, pod=pb.PodMetadata(namespace="../x", name="a")),
        run_request(size_override="big"),
        run_request(volumes=[pb.Volume(name="..", scratch=pb.ScratchVolume())]),
        run_request(
            volumes=[
                pb.Volume(name="v", files=pb.FilesVolume(files=[pb.File(path="../x", data=b"")]))
            ]
        ),
    ],
)
async def test_bad_requests_are_refused_and_leave_nothing(
    world: World, request_: pb.RunSandboxRequest
) -> None:
    async with world.agent() as context:
        with pytest.raises(Invalid):
            await run_sandbox(context, request_)
        assert context.sandboxes == {}
        assert context.store.sandboxes() == []


async def test_a_new_agent_takes_over_and_loses_no_line(world: World) -> None:
    async with world.agent() as context:
        await running(context)
        await world.guest.say(CONTAINER, "one\n")
        await until(lambda: world.guest.containers[CONTAINER].acked_seq >= 1)
        log = context.container(CONTAINER).log_path
    with log.open("a") as file:
        file.write("written, and never acknowledged")
    await world.guest.say(CONTAINER, "two\n")
    async with world.agent() as context:
        await adopt_all(context)
        assert context.sandbox(SANDBOX).record.status.state == pb.SANDBOX_READY
        await world.guest.say(CONTAINER, "three\n")
        await world.guest.end(CONTAINER, 0)
        assert (await exited(context)).reason == "Completed"
    assert [line.rsplit(" ", 1)[1] for line in log.read_text().splitlines()] == [
        "one",
        "two",
        "three",
    ]


async def test_a_log_that_an_earlier_agent_has_complete_is_complete(world: World) -> None:
    async with world.agent() as context:
        await running(context)
        await world.guest.say(CONTAINER, "all there is\n")
        await world.guest.close_output(CONTAINER)
        await until(lambda: world.guest.containers[CONTAINER].acked_seq == 2)
    async with world.agent() as context:
        await adopt_all(context)
        pump = context.container(CONTAINER).pump
        assert pump is not None
        async with asyncio.timeout(10):
            await pump.complete.wait()
        await world.guest.end(CONTAINER, 0, eof=False)
        assert (await exited(context)).reason == "Completed"


async def test_a_log_that_was_late_at_its_containers_end_comes_to_the_next_agent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "_STALL_S", 0.01)
    async with world.agent() as context:
        await running(context)
        await world.guest.end(CONTAINER, 0, eof=False)
        await exited(context)
        log = context.container(CONTAINER).log_path
    await world.guest.say(CONTAINER, "late\n")
    await world.guest.close_output(CONTAINER)
    async with world.agent() as context:
        await adopt_all(context)
        await until(lambda: world.guest.containers[CONTAINER].acked_seq == 2)
        assert log.read_text().endswith(" stdout F late\n")
        assert context.container(CONTAINER).record.status.reason == "Completed"


async def test_a_new_agent_notices_a_vm_that_ended_unwatched(world: World) -> None:
    async with world.agent() as context:
        await running(context)
    world.machines.vms[SANDBOX].ended.set_result(FakeExit(None, ""))
    async with world.agent() as context:
        await adopt_all(context)
        sandbox = list_sandboxes(context, SANDBOX, "").sandboxes[0]
        assert (sandbox.state, sandbox.reason) == (pb.SANDBOX_NOT_READY, "VMExited")
        assert sandbox.containers[0].exit_code == 137
        record = context.store.usage()[0]
        assert record.end_estimated
        assert record.ended_before_ns >= record.ended_at_ns > 0


async def test_a_new_agent_removes_what_nobody_knows_and_finishes_what_was_begun(
    world: World,
) -> None:
    stranger = "e" * 32
    async with world.agent() as context:
        await running(context)
        record = context.sandbox(SANDBOX).record
        record.status.reason = "Stopped"
        record.enter(type(record.phase).STOPPING)
        context.save(context.sandbox(SANDBOX))
    world.network.attached.add(stranger)
    world.machines.leftovers.add(stranger)
    (world.settings.state_dir / "sandboxes" / stranger).mkdir()
    async with world.agent() as context:
        await adopt_all(context)
        assert world.network.attached == set()
        assert world.machines.leftovers == set()
        assert world.machines.vms[SANDBOX].ended.done()
        assert not (world.settings.state_dir / "sandboxes" / stranger).exists()
        assert context.store.sandboxes()[0].phase.value == "ended"


async def test_the_environment_is_on_no_disk(world: World) -> None:
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        env = [pb.EnvVar(name="TOKEN", value="s3cr3t-value")]
        await create_container(context, create_request(env=env))
        spec = orjson.loads(world.guest.containers[CONTAINER].request.oci_spec_json)
        assert "TOKEN=s3cr3t-value" in spec["process"]["env"]
        for path in world.settings.state_dir.rglob("*"):
            assert path.is_dir() or b"s3cr3t-value" not in path.read_bytes()


async def test_a_call_that_waits_for_a_guest_is_told_of_the_end(world: World) -> None:
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        await create_container(context, create_request())
        world.guest.hang_start = asyncio.Event()
        starting = asyncio.create_task(start_container(context, CONTAINER))
        await until(lambda: world.guest.starting)
        await stop_sandbox(context, SANDBOX)
        with pytest.raises(Unavailable, match="ended meanwhile"):
            await starting
