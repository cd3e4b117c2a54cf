"""Probes, hooks, readiness gates and messages in a pod's life."""

from __future__ import annotations

from tests.support.pod_world import container, pod, pod_world
from vk_provider.runtime.fake_records import Executed, Program

_OK: tuple[str, ...] = ("ok",)


def _probe(**fields: object) -> dict[str, object]:
    return {
        "exec": {"command": list(_OK)},
        "periodSeconds": 1,
        "failureThreshold": 1,
        "successThreshold": 1,
        "timeoutSeconds": 1,
        **fields,
    }


async def test_a_pod_is_ready_once_its_readiness_probe_succeeds() -> None:
    execs = {_OK: Executed(code=1)}
    async with pod_world() as world:
        world.runtime.program = lambda _: Program(execs=execs)
        await world.create(pod("web", container(readinessProbe=_probe())))
        await world.advance(3)
        assert world.status()["phase"] == "Running"
        assert world.condition("Ready") == "False"
        execs[_OK] = Executed(code=0)
        await world.advance(2)
        assert world.condition("Ready") == "True"
        execs[_OK] = Executed(code=1)
        await world.advance(2)
        assert world.condition("Ready") == "False"
        assert "Unhealthy" in world.api.reasons()


async def test_a_failed_liveness_probe_restarts_with_its_own_grace() -> None:
    execs = {_OK: Executed(code=1)}
    spec = container(livenessProbe=_probe(terminationGracePeriodSeconds=7))
    async with pod_world() as world:
        world.runtime.program = lambda _: Program(execs=execs)
        await world.create(pod("web", spec))
        first = world.running()
        await world.advance(3)
        assert world.runtime.containers[first].stops == [(7, "")]
        assert world.container_status()["restartCount"] >= 1
        messages = [e.message for e in world.api.events if e.reason == "Killing"]
        assert messages[0] == "Container app failed liveness probe, will be restarted"


async def test_a_startup_probe_holds_up_started() -> None:
    execs = {_OK: Executed(code=1)}
    async with pod_world() as world:
        world.runtime.program = lambda _: Program(execs=execs)
        await world.create(pod("web", container(startupProbe=_probe(failureThreshold=100))))
        await world.advance(2)
        assert world.container_status()["started"] is False
        assert world.condition("Ready") == "False"
        execs[_OK] = Executed(code=0)
        await world.advance(2)
        assert world.container_status()["started"] is True
        assert world.condition("Ready") == "True"


async def test_a_readiness_gate_waits_for_somebody_elses_condition() -> None:
    async with pod_world() as world:
        await world.create(pod(readinessGates=[{"conditionType": "example.test/ok"}]))
        assert world.condition("ContainersReady") == "True"
        assert world.condition("Ready") == "False"
        uid = world.api.pods["default", "web"]["metadata"]["uid"]
        patch = {
            "metadata": {"uid": uid},
            "status": {"conditions": [{"type": "example.test/ok", "status": "True"}]},
        }
        await world.api.patch("/api/v1/namespaces/default/pods/web/status", patch, kind="strategic")
        await world.settle()
        assert world.condition("Ready") == "True"
        assert world.condition("example.test/ok") == "True"


async def test_pre_stop_spends_the_grace_and_the_rest_is_for_the_signal() -> None:
    hook = {"preStop": {"exec": {"command": list(_OK)}}}
    async with pod_world() as world:
        world.runtime.program = lambda _: Program(execs={_OK: Executed(run_s=8)}, term_code=None)
        await world.create(pod("web", container(lifecycle=hook)))
        id_ = world.running()
        world.api.request_deletion("web", grace_s=10)
        await world.advance(7)
        assert world.runtime.containers[id_].stops == []
        await world.advance(1)
        assert world.runtime.containers[id_].stops == [(2, "")]
        await world.advance(2)
        assert world.api.pods == {}


async def test_a_pre_stop_that_never_ends_is_given_up_with_the_grace() -> None:
    hook = {"preStop": {"sleep": {"seconds": 3600}}}
    async with pod_world() as world:
        await world.create(pod("web", container(lifecycle=hook)))
        id_ = world.running()
        world.api.request_deletion("web", grace_s=5)
        record = world.runtime.containers[id_]
        await world.advance(6)
        assert record.stops == [(2, "")]
        assert world.api.pods == {}


async def test_a_failed_post_start_kills_the_container() -> None:
    hook = {"postStart": {"exec": {"command": list(_OK)}}}
    async with pod_world() as world:
        secret = b"password=hunter2"
        world.runtime.program = lambda _: Program(execs={_OK: Executed(code=1, stdout=secret)})
        await world.create(pod("web", container(lifecycle=hook)))
        waiting = world.container_status()["state"].get("waiting", {})
        assert waiting.get("reason") in {"PostStartHookError", "CrashLoopBackOff"}
        assert "FailedPostStartHook" in world.api.reasons()
        assert not any("hunter2" in event.message for event in world.api.events)


async def test_post_start_holds_up_the_containers_after_it() -> None:
    hook = {"postStart": {"exec": {"command": list(_OK)}}}
    async with pod_world() as world:
        world.runtime.program = lambda _: Program(execs={_OK: Executed(run_s=5)})
        await world.create(pod("web", container("proxy", lifecycle=hook), container("app")))
        assert world.started() == ["proxy"]
        await world.advance(5)
        assert world.started() == ["proxy", "app"]


async def test_the_end_of_the_log_stands_in_for_a_message() -> None:
    async with pod_world() as world:
        world.runtime.program = lambda _: Program(run_s=1, exit_code=1, output=b"it broke\n")
        spec = container(terminationMessagePolicy="FallbackToLogsOnError")
        await world.create(pod("web", spec, restartPolicy="Never"))
        await world.advance(1)
        assert world.container_status()["state"]["terminated"]["message"] == "it broke\n"


async def test_a_termination_message_is_shown() -> None:
    async with pod_world() as world:
        await world.create(pod(restartPolicy="Never"))
        world.runtime.exit(world.running(), 3, message=b"because")
        await world.settle()
        assert world.container_status()["state"]["terminated"]["message"] == "because"


async def test_conditions_of_others_are_kept_to_the_end() -> None:
    async with pod_world() as world:
        await world.create(pod())
        uid = world.api.pods["default", "web"]["metadata"]["uid"]
        mine = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        await world.api.patch(
            "/api/v1/namespaces/default/pods/web/status",
            {"metadata": {"uid": uid}, "status": {"conditions": [mine]}},
            kind="strategic",
        )
        world.api.request_deletion("web")
        await world.settle()
        (deleted,) = world.api.deletes
        assert mine in deleted["status"]["conditions"]
