"""What the node relies on in any runtime (the rules at the head of sandbox.proto)."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from tests.contract.conftest import Subject
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import FailedPrecondition, NotFound, VkError
from vk_provider.runtime.exec_sync import exec_sync


async def _exited(subject: Subject, container: str) -> pb.ContainerStatus:
    """Return the container's status once it has exited, woken by events alone."""
    listed = await subject.runtime.list_sandboxes(pod_uid=subject.uid)
    async with (
        asyncio.timeout(60),
        aclosing(subject.runtime.watch_events(listed.event_seq)) as events,
    ):
        while True:
            for status in listed.sandboxes[0].containers:
                if status.container_id == container and status.state == pb.CONTAINER_EXITED:
                    return status
            await anext(events)
            listed = await subject.runtime.list_sandboxes(pod_uid=subject.uid)


async def test_a_sandbox_is_ready_when_run_returns(subject: Subject) -> None:
    request = subject.sandbox_request()
    status = await subject.runtime.run_sandbox(request)
    assert status.state == pb.SANDBOX_READY
    assert status.sandbox_id == request.sandbox_id
    assert status.pod == request.pod
    assert list(status.ips)
    assert dict(status.annotations) == {"note": "kept"}


async def test_calls_repeated_end_in_the_same_state(subject: Subject) -> None:
    runtime = subject.runtime
    first = await runtime.run_sandbox(subject.sandbox_request())
    again = await runtime.run_sandbox(subject.sandbox_request())
    assert (first.sandbox_id, list(first.ips)) == (again.sandbox_id, list(again.ips))
    request = await subject.container(["sleep", "1000"])
    await runtime.create_container(request)
    await runtime.create_container(request)
    started = await runtime.start_container(request.config.container_id)
    repeated = await runtime.start_container(request.config.container_id)
    assert started.state == repeated.state == pb.CONTAINER_RUNNING
    assert started.started_at_ns == repeated.started_at_ns
    await runtime.stop_container(request.config.container_id, 0)
    ended = await runtime.stop_container(request.config.container_id, 0)
    assert ended.state == pb.CONTAINER_EXITED
    await runtime.stop_sandbox(first.sandbox_id)
    await runtime.stop_sandbox(first.sandbox_id)


async def test_what_is_not_there_is_not_found(subject: Subject) -> None:
    runtime, none = subject.runtime, "0" * 32
    for call in (
        runtime.stop_sandbox(none),
        runtime.remove_sandbox(none),
        runtime.start_container(none),
        runtime.stop_container(none, 0),
        runtime.remove_container(none),
        runtime.remove_image("sha256:" + "0" * 64),
    ):
        with pytest.raises(NotFound):
            await call


async def test_an_exit_is_told_with_its_code_and_its_log(subject: Subject) -> None:
    await subject.runtime.run_sandbox(subject.sandbox_request())
    id_ = await subject.start(["sh", "-c", "echo hello; exit 3"])
    status = await _exited(subject, id_)
    assert (status.exit_code, status.reason) == (3, "Error")
    assert status.started_at_ns <= status.finished_at_ns
    log = b""
    async for data in subject.runtime.read_logs(pb.ReadLogsRequest(container_id=id_)):
        log += data
    assert log == b"hello\n"


async def test_success_is_completed(subject: Subject) -> None:
    await subject.runtime.run_sandbox(subject.sandbox_request())
    status = await _exited(subject, await subject.start(["sh", "-c", "echo hello; exit 0"]))
    assert (status.exit_code, status.reason) == (0, "Completed")


async def test_a_command_that_is_not_there_is_a_status(subject: Subject) -> None:
    await subject.runtime.run_sandbox(subject.sandbox_request())
    request = await subject.container(["no-such-command"])
    await subject.runtime.create_container(request)
    status = await subject.runtime.start_container(request.config.container_id)
    assert status.state == pb.CONTAINER_EXITED
    assert (status.reason, status.exit_code) == ("StartError", 128)
    assert "no-such-command" in status.message


async def test_a_container_that_ignores_its_signal_is_killed(subject: Subject) -> None:
    await subject.runtime.run_sandbox(subject.sandbox_request())
    id_ = await subject.start(["sleep", "1000"])
    status = await subject.runtime.stop_container(id_, 0)
    assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, 137)


async def test_a_shorter_grace_shortens_the_first_call(subject: Subject) -> None:
    await subject.runtime.run_sandbox(subject.sandbox_request())
    id_ = await subject.start(["sleep", "1000"])
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        first = group.create_task(subject.runtime.stop_container(id_, 600), name="first")
        await asyncio.sleep(0)
        second = group.create_task(subject.runtime.stop_container(id_, 0), name="second")
    assert first.result().exit_code == second.result().exit_code == 137


async def test_a_stopped_sandbox_keeps_its_records_and_takes_nothing_new(subject: Subject) -> None:
    runtime = subject.runtime
    status = await runtime.run_sandbox(subject.sandbox_request())
    id_ = await subject.start(["sleep", "1000"])
    await runtime.stop_sandbox(status.sandbox_id)
    (listed,) = (await runtime.list_sandboxes(pod_uid=subject.uid)).sandboxes
    assert listed.state == pb.SANDBOX_NOT_READY
    assert listed.ended_at_ns >= listed.created_at_ns
    (container,) = listed.containers
    assert (container.container_id, container.state) == (id_, pb.CONTAINER_EXITED)
    assert container.exit_code != 0
    with pytest.raises(FailedPrecondition):
        await runtime.create_container(await subject.container(["sleep", "1"], name="late"))


async def test_removal_leaves_no_trace(subject: Subject) -> None:
    runtime = subject.runtime
    status = await runtime.run_sandbox(subject.sandbox_request())
    await subject.start(["sleep", "1000"])
    await runtime.remove_sandbox(status.sandbox_id)
    assert not (await runtime.list_sandboxes(pod_uid=subject.uid)).sandboxes


async def test_a_running_container_is_not_removed(subject: Subject) -> None:
    await subject.runtime.run_sandbox(subject.sandbox_request())
    id_ = await subject.start(["sleep", "1000"])
    with pytest.raises(FailedPrecondition):
        await subject.runtime.remove_container(id_)


async def test_limits_change_while_a_container_runs(subject: Subject) -> None:
    await subject.runtime.run_sandbox(subject.sandbox_request())
    id_ = await subject.start(["sleep", "1000"])
    limits = pb.LinuxResources(
        cpu_quota_us=20_000, cpu_period_us=100_000, memory_limit_bytes=64 << 20
    )
    answer = await subject.runtime.update_container_resources(id_, limits, {"more": "said"})
    assert answer.state == pb.CONTAINER_RUNNING
    listed = await subject.runtime.list_sandboxes(pod_uid=subject.uid)
    for status in (answer, listed.sandboxes[0].containers[0]):
        assert status.resources.memory_limit_bytes == 64 << 20
        assert status.resources.cpu_quota_us == 20_000
        assert status.annotations["more"] == "said"


async def test_events_name_the_pod_and_can_be_resumed(subject: Subject) -> None:
    before = (await subject.runtime.list_sandboxes("-")).event_seq
    await subject.runtime.run_sandbox(subject.sandbox_request())
    async with asyncio.timeout(60), aclosing(subject.runtime.watch_events(before)) as events:
        async for event in events:
            if event.pod_uid == subject.uid and event.kind == pb.Event.SANDBOX_CHANGED:
                break
    assert event.seq > before


async def test_exec_gives_output_and_code(subject: Subject) -> None:
    await subject.runtime.run_sandbox(subject.sandbox_request())
    id_ = await subject.start(["sleep", "1000"])
    result = await exec_sync(
        subject.runtime, id_, ["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=60
    )
    assert (result.stdout, result.stderr, result.code) == (b"out\n", b"err\n", 3)
    missing = await exec_sync(subject.runtime, id_, ["no-such-command"], timeout_s=60)
    assert missing.code in {126, 127} and missing.error


async def test_an_image_that_is_in_no_registry_is_an_error(subject: Subject) -> None:
    name = subject.image.partition("/")[0] + "/no/such/image:1"
    with pytest.raises(VkError):
        async for _ in subject.runtime.pull_image(name):
            pass


async def test_a_pulled_image_is_listed_by_name_and_id(subject: Subject) -> None:
    image = await subject.pull()
    assert image.image_ref.startswith("sha256:")
    for name in (subject.image, image.image_ref):
        assert [i.image_ref for i in await subject.runtime.list_images(name)] == [image.image_ref]
