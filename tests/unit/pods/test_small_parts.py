"""Grace, ordering, deadlines, pruning, the alarm, and entries."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.fake_clock import FakeClock
from tests.support.pod_states import ENDED, NOW_NS, run, sandbox, state
from tests.support.pod_world import container, pod
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.alarm import Alarm
from vk_provider.pods.deadlines import active_until_ns, grace_s, remaining_grace_s
from vk_provider.pods.entry import PodEntry
from vk_provider.pods.killing import Grace, Ordering
from vk_provider.pods.prune import superseded
from vk_provider.pods.status.times import to_api

S = 1_000_000_000


async def test_grace_only_shrinks() -> None:
    clock = FakeClock()
    grace = Grace(clock, 10)
    assert not grace.shorten(20)
    assert grace.shorten(4)
    await clock.advance(3)
    assert grace.remaining_s() == 1
    await clock.advance(3)
    assert grace.remaining_s() == 0


async def test_who_waits_for_a_grace_learns_that_it_was_shortened() -> None:
    clock = FakeClock()
    grace = Grace(clock, 100)
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(grace.wait(asyncio.Event()), name="waiter")
        await clock.advance(1)
        grace.shorten(2)
        await clock.advance(2)
        assert waiter.done() and waiter.result() is False


async def test_sidecars_wait_for_apps_and_for_those_after_them() -> None:
    clock = FakeClock()
    sides = [container(n, restartPolicy="Always") for n in ("s1", "s2")]
    ordering = Ordering(pod("web", container("a"), initContainers=sides), ["a", "s1", "s2"])
    ended: list[str] = []

    async def end(name: str) -> None:
        await ordering.wait_turn(name, Grace(clock, 100))
        ended.append(name)
        ordering.ended(name)

    async with asyncio.TaskGroup() as group:
        for name in ("s1", "s2", "a"):
            group.create_task(end(name), name=name)
    assert ended == ["a", "s2", "s1"]


@pytest.mark.parametrize(("deletion", "spec", "expected"), [(None, 30, 30), (5, 30, 5), (0, 30, 1)])
def test_the_grace_of_a_pod(deletion: int | None, spec: int, expected: float) -> None:
    made = pod(terminationGracePeriodSeconds=spec)
    if deletion is not None:
        made["metadata"]["deletionGracePeriodSeconds"] = deletion
    assert grace_s(made) == expected


def test_what_is_left_of_a_grace_after_a_restart() -> None:
    made = pod()
    made["metadata"]["deletionGracePeriodSeconds"] = 30
    made["metadata"]["deletionTimestamp"] = to_api(NOW_NS + 12 * S)
    assert remaining_grace_s(made, NOW_NS) == 12
    assert remaining_grace_s(made, NOW_NS + 60 * S) == 2


def test_the_end_of_the_active_deadline() -> None:
    status = {"startTime": to_api(NOW_NS)}
    assert active_until_ns(pod(activeDeadlineSeconds=60), status) == NOW_NS + 60 * S
    assert active_until_ns(pod(), status) == 0
    assert active_until_ns(pod(activeDeadlineSeconds=60), {}) == 0


def test_records_beyond_the_last_two_runs_are_superseded() -> None:
    runs = [run("app", i, exit_code=1) for i in range(4)]
    old = superseded(state(sandbox(*runs)))
    assert set(old.containers) == {"app-0", "app-1"} and old.sandboxes == ()


def test_a_dead_sandbox_is_kept_while_its_log_is_the_last_one() -> None:
    dead = sandbox(run("app", 0, exit_code=1), state=ENDED)
    assert superseded(state(dead, sandbox(run("app", 1), attempt=1))).sandboxes == ()
    later = sandbox(run("app", 1, exit_code=1), run("app", 2), attempt=1)
    assert superseded(state(dead, later)).sandboxes == ("sandbox-0",)
    assert superseded(state(sandbox(state=ENDED), sandbox(attempt=1))).sandboxes == ("sandbox-0",)


async def test_the_alarm_rings_at_the_earliest_time_and_once() -> None:
    clock = FakeClock()
    rung: list[float] = []
    alarm = Alarm(clock, lambda: rung.append(clock.monotonic()))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(alarm.run(), name="alarm")
        alarm.set(clock.now_ns() + 10 * S)
        await clock.advance(1)
        alarm.set(clock.now_ns() + 2 * S)
        alarm.set(clock.now_ns() + 50 * S)
        await clock.advance(100)
        assert rung == [3]
        alarm.set(clock.now_ns() + S)
        await clock.advance(2)
        assert len(rung) == 2
        task.cancel()


def test_an_entry_finds_the_present_and_the_previous_run() -> None:
    shown = {**pod(), "status": {}}
    entry = PodEntry(shown, state(sandbox(run("app", 0, exit_code=1), run("app", 1))))
    assert entry.container_id("app") == "app-1"
    assert entry.container_id("app", previous=True) == "app-0"
    assert entry.container_id("none") is None
    assert entry.sandbox_id == "sandbox-0"


def test_a_run_that_has_not_begun_has_no_log_yet() -> None:
    created = pb.ContainerStatus(
        name="app", container_id="app-1", attempt=1, state=pb.CONTAINER_CREATED
    )
    entry = PodEntry({**pod(), "status": {}}, state(sandbox(run("app", exit_code=1), created)))
    assert entry.container_id("app") == "app-0"
