"""From bound to Running, and from deleted to gone."""

from __future__ import annotations

from tests.support.pod_world import container, pod, pod_world
from vk_provider._pb import sandbox_pb2 as pb


async def test_a_pod_becomes_running_and_ready() -> None:
    async with pod_world() as world:
        await world.create(pod())
        status = world.status()
        assert status["phase"] == "Running"
        assert status["podIP"] == "10.1.0.1"
        assert status["hostIP"] == "192.0.2.1"
        assert status["qosClass"] == "BestEffort"
        for type_ in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"):
            assert world.condition(type_) == "True", type_
        shown = world.container_status()
        assert shown["ready"] and shown["started"]
        assert shown["restartCount"] == 0
        assert shown["containerID"] == f"vk://{world.running()}"
        reasons = world.api.reasons()
        assert reasons == ["Pulling", "Pulled", "SandboxStarted", "Created", "Started"] or (
            sorted(reasons) == ["Created", "Pulled", "Pulling", "SandboxStarted", "Started"]
        )


async def test_its_ids_can_be_found_by_name() -> None:
    async with pod_world() as world:
        await world.create(pod())
        entry = world.manager.find("default", "web")
        assert entry is not None
        assert entry.container_id("app") == world.running()
        assert entry.container_id("app", previous=True) is None
        assert entry.container_id("other") is None
        assert entry.sandbox_id in world.runtime.sandboxes
        assert world.manager.find("default", "web", uid="another") is None
        assert [p["metadata"]["name"] for p in world.manager.pods()] == ["web"]


async def test_deletion_ends_the_containers_then_the_vm_then_the_object() -> None:
    async with pod_world() as world:
        await world.create(pod())
        world.api.request_deletion("web")
        await world.settle()
        (deleted,) = world.api.deletes
        assert deleted["status"]["phase"] == "Succeeded"
        ended = deleted["status"]["containerStatuses"][0]["state"]["terminated"]
        assert ended["exitCode"] == 0
        assert world.api.pods == {}
        assert world.runtime.sandboxes == {}
        assert world.manager.pods() == []
        assert world.api.registered == set()


async def test_the_grace_is_given_and_a_later_delete_shortens_it() -> None:
    from vk_provider.runtime.fake_records import Program

    async with pod_world() as world:
        world.runtime.program = lambda _: Program(term_code=None)
        await world.create(pod())
        id_ = world.running()
        world.api.request_deletion("web")
        await world.advance(10)
        assert world.runtime.containers[id_].stops == [(30, "")]
        assert "web" in {key[1] for key in world.api.pods}
        world.api.request_deletion("web", grace_s=5)
        await world.settle()
        assert [grace for grace, _ in world.runtime.containers[id_].stops] == [30, 5]
        await world.advance(5)
        assert world.api.pods == {}
        (deleted,) = world.api.deletes
        assert deleted["status"]["phase"] == "Failed"
        assert deleted["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


async def test_a_job_completes_and_keeps_its_records() -> None:
    from vk_provider.runtime.fake_records import Program

    async with pod_world() as world:
        world.runtime.program = lambda _: Program(run_s=5, output=b"done\n")
        await world.create(pod(restartPolicy="Never"))
        assert world.status()["phase"] == "Running"
        await world.advance(5)
        assert world.status()["phase"] == "Succeeded"
        assert world.container_status()["state"]["terminated"]["reason"] == "Completed"
        assert world.status()["podIP"] == "10.1.0.1", "a finished pod keeps its address"
        (sandbox,) = world.runtime.sandboxes.values()
        assert sandbox.status.state == pb.SANDBOX_NOT_READY
        entry = world.manager.find("default", "web")
        assert entry is not None and entry.container_id("app") is not None
        world.api.request_deletion("web")
        await world.settle()
        assert world.api.pods == {} and world.runtime.sandboxes == {}


async def test_several_containers_start_in_one_sandbox() -> None:
    async with pod_world() as world:
        await world.create(pod("web", container("a"), container("b"), container("c")))
        assert world.status()["phase"] == "Running"
        assert sorted(world.started()) == ["a", "b", "c"]
        assert len(world.runtime.sandboxes) == 1
