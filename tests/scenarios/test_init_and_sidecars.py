"""Init containers, sidecars and ephemeral containers."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.pod_world import container, pod, pod_world
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.runtime.fake_records import Program


def _by_name(**programs: Program) -> Callable[[pb.ContainerConfig], Program]:
    return lambda config: programs.get(config.name, Program())


async def test_init_containers_run_one_after_the_other() -> None:
    async with pod_world() as world:
        world.runtime.program = _by_name(first=Program(run_s=2), second=Program(run_s=2))
        await world.create(pod(initContainers=[container("first"), container("second")]))
        assert world.started() == ["first"]
        assert world.status()["phase"] == "Pending"
        assert world.condition("Initialized") == "False"
        assert world.container_status()["state"]["waiting"]["reason"] == "PodInitializing"
        await world.advance(2)
        assert world.started() == ["first", "second"]
        await world.advance(2)
        assert world.started() == ["first", "second", "app"]
        assert world.condition("Initialized") == "True"
        assert world.status()["phase"] == "Running"


async def test_a_failed_init_container_fails_a_pod_that_runs_once() -> None:
    async with pod_world() as world:
        world.runtime.program = _by_name(first=Program(run_s=1, exit_code=1))
        await world.create(pod(initContainers=[container("first")], restartPolicy="Never"))
        await world.advance(1)
        assert world.status()["phase"] == "Failed"
        assert world.started() == ["first"]
        assert "waiting" in world.container_status()["state"]


async def test_a_failed_init_container_is_tried_again() -> None:
    async with pod_world() as world:
        world.runtime.program = _by_name(first=Program(run_s=1, exit_code=1))
        await world.create(pod(initContainers=[container("first")]))
        await world.advance(1)
        await world.advance(1)
        shown = world.container_status("first")
        assert shown["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        assert world.status()["phase"] == "Pending"
        world.runtime.program = _by_name(first=Program(run_s=1))
        await world.advance(11)
        await world.advance(1)
        assert world.status()["phase"] == "Running"


async def test_a_sidecar_starts_first_and_ends_last() -> None:
    async with pod_world() as world:
        world.runtime.program = _by_name(app=Program(term_code=None))
        sidecar = container("proxy", restartPolicy="Always")
        await world.create(pod(initContainers=[sidecar]))
        assert world.started() == ["proxy", "app"]
        assert world.container_status("proxy")["ready"]
        app, proxy = world.running(), world.running("proxy")
        world.api.request_deletion("web", grace_s=10)
        await world.advance(1)
        assert world.runtime.containers[app].stops
        assert not world.runtime.containers[proxy].stops
        world.runtime.exit(app, 0)
        await world.settle()
        assert world.api.pods == {}


async def test_a_sidecar_does_not_keep_a_finished_pod_alive() -> None:
    async with pod_world() as world:
        world.runtime.program = _by_name(app=Program(run_s=3))
        sidecar = container("proxy", restartPolicy="Always")
        await world.create(pod(initContainers=[sidecar], restartPolicy="Never"))
        await world.advance(3)
        assert world.status()["phase"] == "Succeeded"
        assert "terminated" in world.container_status("proxy")["state"]


async def test_a_sidecar_is_restarted_whatever_the_pods_policy() -> None:
    async with pod_world() as world:
        sidecar = container("proxy", restartPolicy="Always")
        await world.create(pod(initContainers=[sidecar], restartPolicy="Never"))
        world.runtime.exit(world.running("proxy"), 1)
        await world.settle()
        assert world.container_status("proxy")["restartCount"] == 1
        assert world.status()["phase"] == "Running"


async def test_after_a_lost_vm_initialization_begins_anew() -> None:
    async with pod_world() as world:
        world.runtime.program = _by_name(first=Program(run_s=1))
        await world.create(pod(initContainers=[container("first")]))
        await world.advance(1)
        (sandbox_id,) = world.runtime.sandboxes
        world.runtime.lose_vm(sandbox_id)
        await world.settle()
        assert world.started()[-1] == "first"
        await world.advance(1)
        assert world.started()[-1] == "app"
        assert world.container_status("first")["restartCount"] == 1


async def test_an_ephemeral_container_is_started_once() -> None:
    async with pod_world() as world:
        world.runtime.program = _by_name(debug=Program(run_s=2, exit_code=1))
        await world.create(pod())
        debug = container("debug", targetContainerName="app")
        world.api.change("web", ephemeralContainers=[debug])
        await world.settle()
        assert "running" in world.container_status("debug")["state"]
        made = next(c for c in world.runtime.containers.values() if c.config.name == "debug")
        assert made.config.target_container_id == world.running()
        await world.advance(5)
        assert "terminated" in world.container_status("debug")["state"]
        assert world.started().count("debug") == 1
        assert made.status.state == pb.CONTAINER_EXITED
        assert world.status()["phase"] == "Running"
