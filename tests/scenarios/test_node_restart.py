"""The node's process ends and another takes over; the agent or the API server is away."""

from __future__ import annotations

import pytest

from tests.support.pod_world import container, pod, pod_world
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.runtime.fake_records import Executed, Program

_CREATING = {"run_sandbox", "create_container", "start_container", "stop_container"}


async def test_a_restart_touches_nothing_that_runs() -> None:
    async with pod_world() as world:
        spec = container(readinessProbe={"exec": {"command": ["ready"]}, "periodSeconds": 10})
        world.runtime.program = lambda _: Program(execs={("ready",): Executed()})
        await world.create(pod("web", spec))
        await world.advance(10)
        assert world.container_status()["ready"]
        patches, id_ = len(world.api.patches), world.running()
        await world.kill_node()
        world.runtime.calls.clear()
        await world.start_node()
        assert world.running() == id_
        assert not {call for call, _ in world.runtime.calls} & _CREATING
        assert len(world.api.patches) == patches, "no status changed, so none is written"
        assert world.container_status()["ready"]


async def test_an_exit_while_nobody_watched_is_seen_afterwards() -> None:
    async with pod_world() as world:
        await world.create(pod())
        id_ = world.running()
        await world.kill_node()
        world.runtime.exit(id_, 7)
        await world.start_node()
        shown = world.container_status()
        assert shown["lastState"]["terminated"]["exitCode"] == 7
        assert shown["restartCount"] == 1


async def test_a_pod_deleted_while_nobody_watched_is_ended_with_what_is_left_of_its_grace() -> None:
    async with pod_world() as world:
        world.runtime.program = lambda _: Program(term_code=None)
        await world.create(pod())
        id_ = world.running()
        await world.kill_node()
        world.api.request_deletion("web", grace_s=30)
        await world.advance(20)
        await world.start_node()
        assert world.runtime.containers[id_].stops == [(10, "")]
        await world.advance(10)
        assert world.api.pods == {} and world.runtime.sandboxes == {}


async def test_what_the_api_does_not_know_any_more_is_ended_and_removed() -> None:
    async with pod_world() as world:
        await world.create(pod())
        id_ = world.running()
        record = world.runtime.containers[id_]
        await world.kill_node()
        world.api.remove("web")
        await world.start_node()
        assert record.stops == [(30, "")]
        assert world.runtime.sandboxes == {}


async def test_another_pod_of_the_same_name_is_another_pod() -> None:
    async with pod_world() as world:
        await world.create(pod())
        await world.kill_node()
        world.api.remove("web")
        world.api.create(pod(uid="99999999-2222-3333-4444-555555555555"))
        await world.start_node()
        (sandbox,) = world.runtime.sandboxes.values()
        assert sandbox.status.pod.uid.startswith("9999")
        assert world.status()["phase"] == "Running"


async def test_while_the_api_list_has_not_come_nobody_is_an_orphan() -> None:
    async with pod_world() as world:
        await world.create(pod())
        await world.kill_node()
        world.api.go_away()
        await world.start_node()
        await world.advance(60)
        assert world.running()
        world.api.come_back()
        await world.advance(10)
        assert world.running()
        assert world.status()["phase"] == "Running"


async def test_an_agent_that_is_away_says_nothing_about_pods() -> None:
    async with pod_world() as world:
        await world.create(pod())
        patches = len(world.api.patches)
        world.runtime.go_away()
        await world.advance(120)
        assert len(world.api.patches) == patches
        assert world.status()["phase"] == "Running"
        world.runtime.come_back()
        await world.advance(20)
        assert len(world.api.patches) == patches
        world.runtime.exit(world.running(), 1)
        await world.settle()
        assert world.container_status()["restartCount"] == 1


async def test_a_pod_created_while_the_agent_was_away_starts_later() -> None:
    async with pod_world() as world:
        world.runtime.go_away()
        await world.create(pod())
        await world.advance(30)
        assert world.status()["phase"] == "Pending"
        world.runtime.come_back()
        await world.advance(15)
        assert world.status()["phase"] == "Running"


async def test_statuses_catch_up_after_the_api_server_was_away() -> None:
    async with pod_world() as world:
        world.runtime.program = lambda _: Program(run_s=100)
        await world.create(pod(restartPolicy="Never"))
        world.api.go_away()
        await world.advance(600)
        world.api.come_back()
        await world.advance(10)
        assert world.status()["phase"] == "Succeeded"


async def test_a_deletion_interrupted_anywhere_is_completed() -> None:
    for seconds in range(4):
        async with pod_world() as world:
            world.runtime.program = lambda _: Program(term_code=None)
            await world.create(pod(terminationGracePeriodSeconds=2))
            gate = world.runtime.hold("stop_sandbox") if seconds == 3 else None
            world.api.request_deletion("web", grace_s=2)
            await world.advance(seconds)
            await world.kill_node()
            if gate is not None:
                gate.set()
            await world.start_node()
            await world.advance(5)
            assert world.api.pods == {}, seconds
            assert world.runtime.sandboxes == {}, seconds


async def test_a_start_interrupted_is_taken_up_with_the_same_ids() -> None:
    for call in ("run_sandbox", "pull_image", "create_container", "start_container"):
        async with pod_world() as world:
            gate = world.runtime.hold(call)
            await world.create(pod())
            await world.kill_node()
            gate.set()
            await world.start_node()
            assert world.status()["phase"] == "Running", call
            assert len(world.runtime.sandboxes) == 1, call
            assert world.container_status()["restartCount"] == 0, call


async def test_missed_events_lead_to_a_new_look() -> None:
    async with pod_world() as world:
        await world.create(pod())
        id_ = world.running()
        world.runtime.go_away()
        await world.settle()
        world.runtime.exit(id_, 5)
        world.runtime.forget_events()
        world.runtime.come_back()
        await world.advance(10)
        assert world.container_status()["lastState"]["terminated"]["exitCode"] == 5


async def test_a_finished_pod_stays_as_it_was() -> None:
    async with pod_world() as world:
        world.runtime.program = lambda _: Program(run_s=1, exit_code=2)
        await world.create(pod(restartPolicy="Never"))
        await world.advance(1)
        before = world.status()
        await world.kill_node()
        await world.start_node()
        assert world.status() == before
        assert next(iter(world.runtime.sandboxes.values())).status.state == pb.SANDBOX_NOT_READY


async def test_a_defect_met_by_one_pod_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from vk_provider.pods.planner import plan as real

    def broken(pod_, *rest):  # type: ignore[no-untyped-def]
        if pod_["metadata"]["name"] == "bad":
            raise ZeroDivisionError("a defect")
        return real(pod_, *rest)

    monkeypatch.setattr("vk_provider.pods.worker.plan", broken)
    async with pod_world() as world:
        await world.create(pod("bad", uid="1"))
        await world.create(pod("good", uid="2"))
        assert world.status("good")["phase"] == "Running"
        monkeypatch.setattr("vk_provider.pods.worker.plan", real)
        await world.advance(5)
        assert world.status("bad")["phase"] == "Running"
