"""A running pod is given more or less CPU and memory, at once, later, or not at all."""

from __future__ import annotations

import json
from typing import Any

from tests.support.pod_world import PodWorld, container, pod, pod_world
from vk_provider.common.errors import FailedPrecondition

MI = 1024 * 1024
SMALL = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
LARGE = {
    "requests": {"cpu": "300m", "memory": "128Mi"},
    "limits": {"cpu": "400m", "memory": "128Mi"},
}


BELOW_USAGE = FailedPrecondition("cannot set a memory limit (1) below current usage (2)")


def ask(world: PodWorld, resources: dict[str, Any], name: str = "web", **fields: Any) -> None:
    """Ask for other resources, as the API server lets the subresource `resize` do."""
    world.api.change(name, containers=[container(resources=resources, **fields)])


def conditions(world: PodWorld, name: str = "web") -> dict[str, dict[str, Any]]:
    found = {c["type"]: c for c in world.status(name)["conditions"]}
    return {type_: found[type_] for type_ in found if type_.startswith("PodResize")}


def limits_set(world: PodWorld) -> list[str]:
    return [what for call, what in world.runtime.calls if call == "update_container_resources"]


async def shrink_in_vain(world: PodWorld) -> None:
    """Ask a large pod to be small, while it uses too much for that."""
    await world.create(pod("web", container(resources=LARGE)))
    world.runtime.fail("update_container_resources", BELOW_USAGE)
    ask(world, SMALL)
    await world.settle()


async def test_limits_change_under_a_running_container() -> None:
    async with pod_world() as world:
        await world.create(pod("web", container(resources=SMALL)))
        id_ = world.running()
        ask(world, LARGE)
        await world.settle()
        assert world.running() == id_
        assert limits_set(world) == [id_]
        shown = world.container_status()
        assert shown["restartCount"] == 0
        assert shown["resources"] == LARGE
        assert shown["allocatedResources"] == LARGE["requests"]
        given = world.runtime.containers[id_].status.resources
        assert (given.cpu_quota_us, given.memory_limit_bytes) == (40_000, 128 * MI)
        assert conditions(world) == {}
        assert world.api.reasons()[-2:] == ["ResizeStarted", "ResizeCompleted"]
        # What changes nothing is no resize, however it is written.
        ask(world, {**LARGE, "limits": {"cpu": "0.4", "memory": "131072Ki"}})
        await world.settle()
        assert limits_set(world) == [id_]


async def test_a_container_restarts_where_its_policy_says_so() -> None:
    async with pod_world() as world:
        policy = [
            {"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": "RestartContainer"},
        ]
        await world.create(pod("web", container(resources=SMALL, resizePolicy=policy)))
        id_ = world.running()
        more_cpu = {
            "requests": {**SMALL["requests"], "cpu": "150m"},
            "limits": SMALL["limits"],
        }
        ask(world, more_cpu, resizePolicy=policy)
        await world.settle()
        assert limits_set(world) == [id_]
        ask(world, LARGE, resizePolicy=policy)
        await world.settle()
        assert world.running() != id_
        assert limits_set(world) == [id_]
        assert world.container_status()["restartCount"] == 1
        assert world.container_status()["resources"] == LARGE
        messages = [event.message for event in world.api.events]
        assert "Container app resize requires restart" in " ".join(messages)


async def test_what_does_not_fit_into_the_vm_is_infeasible_until_it_is_asked_for_no_more() -> None:
    async with pod_world() as world:
        await world.create(pod("web", container(resources=SMALL)))
        huge = {"requests": SMALL["requests"], "limits": {"cpu": "200m", "memory": "2Gi"}}
        ask(world, huge)
        await world.settle()
        pending = conditions(world)["PodResizePending"]
        assert pending["reason"] == "Infeasible"
        assert "the pod's VM has 1 CPU and 1024Mi, and keeps that: memory" in pending["message"]
        assert limits_set(world) == []
        assert world.container_status()["resources"] == SMALL
        assert world.api.reasons().count("ResizeInfeasible") == 1
        await world.advance(60)
        assert world.api.reasons().count("ResizeInfeasible") == 1
        ask(world, SMALL)
        await world.settle()
        assert conditions(world) == {}


async def test_what_the_node_has_no_room_for_comes_when_another_pod_ends() -> None:
    async with pod_world() as world:
        await world.create(pod("web", container(resources=SMALL)))
        other = container(resources={"requests": {"cpu": "3800m"}})
        await world.create(pod("other", other, uid="2" * 36))
        ask(world, LARGE)
        await world.settle()
        pending = conditions(world)["PodResizePending"]
        assert (pending["reason"], pending["status"]) == ("Deferred", "True")
        assert "cpu, requested: 300, used: 3800, capacity: 4000" in pending["message"]
        assert world.container_status()["allocatedResources"] == SMALL["requests"]
        # A new process of the node goes on from there.
        await world.kill_node()
        await world.start_node()
        assert conditions(world)["PodResizePending"]["reason"] == "Deferred"
        assert world.container_status()["allocatedResources"] == SMALL["requests"]
        world.api.request_deletion("other", 0)
        await world.advance(1)
        assert conditions(world) == {}
        assert world.container_status()["resources"] == LARGE
        assert world.api.reasons().count("ResizeDeferred") == 1


async def test_a_container_that_uses_more_than_its_new_limit_is_told_and_tried_again() -> None:
    async with pod_world() as world:
        await shrink_in_vain(world)
        in_progress = conditions(world)["PodResizeInProgress"]
        assert in_progress["reason"] == "Error"
        assert "below current usage" in in_progress["message"]
        assert world.container_status()["allocatedResources"] == SMALL["requests"]
        assert world.api.reasons().count("ResizeError") == 1
        before = len(limits_set(world))
        await world.advance(9)
        assert len(limits_set(world)) == before
        await world.advance(1)
        assert conditions(world) == {}
        assert world.container_status()["resources"] == SMALL
        told = next(e for e in world.api.events if e.reason == "ResizeError").message
        what, _, summary = told.partition(": ")
        assert what == "Pod resize error"
        assert json.loads(summary)["containers"] == [{"name": "app", "resources": SMALL}]


async def test_sidecars_are_resized_as_app_containers_are() -> None:
    async with pod_world() as world:
        sidecar = container("side", restartPolicy="Always", resources=SMALL)
        await world.create(pod("web", container(), initContainers=[sidecar]))
        id_ = world.running("side")
        world.api.change("web", initContainers=[{**sidecar, "resources": LARGE}])
        await world.settle()
        assert limits_set(world) == [id_]
        assert world.container_status("side")["resources"] == LARGE


async def test_a_change_before_the_pod_was_started_is_what_it_starts_with() -> None:
    async with pod_world() as world:
        gate = world.runtime.hold("run_sandbox")
        await world.create(pod("web", container(resources=SMALL)))
        ask(world, LARGE)
        await world.settle()
        gate.set()
        await world.settle()
        assert world.container_status()["resources"] == LARGE
        assert world.container_status()["restartCount"] == 0
        assert conditions(world) == {}


async def test_a_new_process_of_the_node_finds_nothing_to_do_after_a_resize() -> None:
    async with pod_world() as world:
        # What the pod gives a container shows in its status, and is not the container's own.
        of_pod = {"limits": {"cpu": "500m", "memory": "256Mi"}}
        resources = {"requests": {"memory": "1000001"}, "limits": {"memory": "1000001"}}
        await world.create(pod("web", container(resources=resources), resources=of_pod))
        ask(world, {"requests": {"memory": "2000001"}, "limits": {"memory": "2000001"}})
        await world.settle()
        assert conditions(world) == {}
        before = world.api.reasons()
        for _ in range(2):
            await world.kill_node()
            await world.start_node()
        assert world.api.reasons() == before
        assert len(limits_set(world)) == 1


async def test_what_was_refused_stays_so_for_a_container_that_never_ran() -> None:
    async with pod_world() as world:
        missing = container(resources=SMALL, image="registry.test/none:1")
        await world.create(pod("web", missing))
        huge = {"requests": SMALL["requests"], "limits": {"cpu": "200m", "memory": "2Gi"}}
        ask(world, huge, image="registry.test/none:1")
        await world.settle()
        assert conditions(world)["PodResizePending"]["reason"] == "Infeasible"
        await world.kill_node()
        await world.start_node()
        assert conditions(world)["PodResizePending"]["reason"] == "Infeasible"
        assert world.api.reasons().count("ResizeInfeasible") == 1


async def test_a_shrink_that_fails_is_taken_up_by_a_new_process() -> None:
    async with pod_world() as world:
        await shrink_in_vain(world)
        world.runtime.fail("update_container_resources", BELOW_USAGE)
        await world.kill_node()
        await world.start_node()
        assert conditions(world)["PodResizeInProgress"]["reason"] == "Error"
        assert world.api.reasons().count("ResizeStarted") == 1
        assert world.api.reasons().count("ResizeError") == 1
        await world.advance(10)
        assert conditions(world) == {}
        assert world.api.reasons().count("ResizeCompleted") == 1


async def test_a_resize_is_judged_later_while_the_node_object_is_away() -> None:
    async with pod_world() as world:
        await world.create(pod("web", container(resources=SMALL)))
        id_ = world.running()
        node, world.api.node_object = world.api.node_object, None
        ask(world, LARGE)
        await world.settle()
        assert world.running() == id_
        assert limits_set(world) == []
        world.api.node_object = node
        await world.advance(5)
        assert limits_set(world) == [id_]
        assert conditions(world) == {}


async def test_a_container_that_is_being_pulled_starts_with_what_was_given_meanwhile() -> None:
    async with pod_world() as world:
        gate = world.runtime.hold("pull_image")
        await world.create(pod("web", container(resources=SMALL)))
        ask(world, LARGE)
        await world.settle()
        gate.set()
        await world.settle()
        assert world.container_status()["resources"] == LARGE
        assert world.container_status()["restartCount"] == 0
        assert limits_set(world) == []
        assert conditions(world) == {}
        assert world.api.reasons().count("ResizeCompleted") == 1


async def test_what_a_runtime_class_takes_beside_the_pod_is_not_asked_of_its_vm() -> None:
    async with pod_world() as world:
        whole = {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}
        half = {"requests": {"cpu": "500m"}, "limits": {"cpu": "500m"}}
        spec = pod("web", container(resources=whole), overhead={"cpu": "250m"})
        await world.create(spec)
        for resources in (half, whole):
            ask(world, resources)
            await world.settle()
            assert conditions(world) == {}
            assert world.container_status()["resources"] == resources
