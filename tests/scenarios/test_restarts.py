"""Containers that end: restart policies, crash loops, lost VMs."""

from __future__ import annotations

from tests.support.pod_world import container, pod, pod_world
from vk_provider.runtime.fake_records import Program


async def test_a_crash_loop_backs_off_from_10_s_doubling() -> None:
    async with pod_world() as world:
        world.runtime.program = lambda _: Program(run_s=1, exit_code=3)
        await world.create(pod())
        await world.advance(1)
        # The first restart comes at once.
        assert world.container_status()["restartCount"] == 1
        assert "running" in world.container_status()["state"]
        await world.advance(1)
        shown = world.container_status()
        assert shown["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        assert shown["state"]["waiting"]["message"].startswith(
            "back-off 10s restarting failed container=app pod=web_default("
        )
        assert shown["lastState"]["terminated"]["exitCode"] == 3
        assert world.status()["phase"] == "Running"
        await world.advance(9)
        assert world.container_status()["restartCount"] == 1
        await world.advance(1)
        assert world.container_status()["restartCount"] == 2
        await world.advance(1)
        assert "back-off 20s" in world.container_status()["state"]["waiting"]["message"]
        assert world.api.reasons().count("BackOff") == 2


async def test_a_pod_that_waits_is_left_alone_meanwhile() -> None:
    async with pod_world() as world:
        world.runtime.program = lambda _: Program(run_s=1, exit_code=3)
        await world.create(pod())
        await world.advance(2)
        assert "back-off 10s" in world.container_status()["state"]["waiting"]["message"]
        before = len(world.runtime.calls)
        await world.advance(9)
        assert world.runtime.calls[before:] == []


async def test_after_ten_quiet_minutes_the_back_off_begins_anew() -> None:
    async with pod_world() as world:
        world.runtime.program = lambda _: Program()
        await world.create(pod())
        for _ in range(3):
            world.runtime.exit(world.running(), 1)
            await world.advance(41)
        assert world.container_status()["restartCount"] == 3
        await world.advance(1200)
        world.runtime.exit(world.running(), 1)
        await world.settle()
        assert world.container_status()["restartCount"] == 4
        assert "running" in world.container_status()["state"]


async def test_on_failure_restarts_failures_alone() -> None:
    async with pod_world() as world:
        await world.create(pod("web", container("a"), container("b"), restartPolicy="OnFailure"))
        world.runtime.exit(world.running("a"), 0)
        world.runtime.exit(world.running("b"), 1)
        await world.settle()
        assert "terminated" in world.container_status("a")["state"]
        assert world.container_status("b")["restartCount"] == 1
        assert world.status()["phase"] == "Running"
        world.runtime.exit(world.running("b"), 0)
        await world.settle()
        assert world.status()["phase"] == "Succeeded"


async def test_never_means_failed() -> None:
    async with pod_world() as world:
        await world.create(pod(restartPolicy="Never"))
        world.runtime.exit(world.running(), 1)
        await world.settle()
        assert world.status()["phase"] == "Failed"
        assert world.condition("Ready") == "False"


async def test_the_last_two_runs_are_kept() -> None:
    async with pod_world() as world:
        world.runtime.program = lambda _: Program(run_s=1, exit_code=1)
        await world.create(pod())
        await world.advance(60)
        assert world.container_status()["restartCount"] >= 3
        assert len(world.runtime.containers) == 2
        entry = world.manager.find("default", "web")
        assert entry is not None
        previous = entry.container_id("app", previous=True)
        shown = world.container_status()
        assert shown["lastState"]["terminated"]["containerID"] in {
            f"vk://{previous}",
            f"vk://{entry.container_id('app')}",
        }


async def test_a_container_whose_creation_was_interrupted_is_created_again() -> None:
    async with pod_world() as world:
        gate = world.runtime.hold("start_container")
        await world.create(pod())
        (container,) = world.runtime.containers.values()
        container.made = False  # as the record is that a killed agent leaves
        world.runtime.go_away()
        gate.set()
        await world.settle()
        world.runtime.come_back()
        await world.advance(10)
        assert "running" in world.container_status()["state"]
        assert world.container_status()["restartCount"] == 0


async def test_a_lost_vm_is_replaced_and_its_containers_count_as_killed() -> None:
    async with pod_world() as world:
        await world.create(pod())
        (sandbox_id,) = world.runtime.sandboxes
        world.runtime.lose_vm(sandbox_id)
        await world.settle()
        shown = world.container_status()
        assert "running" in shown["state"]
        assert shown["restartCount"] == 1
        assert shown["lastState"]["terminated"]["exitCode"] == 137
        assert "SandboxChanged" in world.api.reasons()
        assert world.status()["podIP"] == "10.1.0.2"
        assert world.status()["phase"] == "Running"


async def test_a_lost_vm_ends_a_pod_that_runs_once() -> None:
    async with pod_world() as world:
        await world.create(pod(restartPolicy="Never"))
        (sandbox_id,) = world.runtime.sandboxes
        world.runtime.lose_vm(sandbox_id)
        await world.settle()
        assert world.status()["phase"] == "Failed"
        assert len(world.runtime.sandboxes) == 1


async def test_a_command_that_is_not_there_is_a_start_error() -> None:
    async with pod_world() as world:
        error = 'exec: "nope": executable file not found in $PATH'
        world.runtime.program = lambda _: Program(start_error=error)
        await world.create(pod())
        await world.settle()
        shown = world.container_status()
        assert shown["state"]["waiting"]["reason"] in {"RunContainerError", "CrashLoopBackOff"}
        assert shown["lastState"]["terminated"]["reason"] == "StartError"
        assert shown["lastState"]["terminated"]["exitCode"] == 128
        assert any(error in event.message for event in world.api.events)


async def test_a_changed_image_restarts_the_container() -> None:
    from vk_provider.runtime.fake_records import FakeImage

    async with pod_world() as world:
        world.runtime.registry["registry.test/app:2"] = FakeImage("sha256:" + "2" * 64)
        await world.create(pod(restartPolicy="Never"))
        world.api.change("web", containers=[container(image="registry.test/app:2")])
        await world.settle()
        shown = world.container_status()
        assert shown["image"] == "registry.test/app:2"
        assert shown["restartCount"] == 1
        assert world.status()["observedGeneration"] == 2


async def test_a_rule_of_the_container_outranks_the_pods_policy() -> None:
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
    spec = container(restartPolicy="Never", restartPolicyRules=rules)
    async with pod_world() as world:
        await world.create(pod("web", spec, restartPolicy="Never"))
        world.runtime.exit(world.running(), 42)
        await world.settle()
        assert world.container_status()["restartCount"] == 1
        world.runtime.exit(world.running(), 1)
        await world.settle()
        assert world.status()["phase"] == "Failed"
