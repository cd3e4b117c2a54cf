"""What probes and hooks do to a pod's life."""

from __future__ import annotations

from typing import Any

from tests.support.pod_world import PodWorld, container, pod, pod_world
from vk_provider.runtime.fake_records import Executed, Program

GOOD, BAD = Executed(), Executed(code=1, stdout=b"not well")


def probe(command: str, **fields: Any) -> dict[str, Any]:
    return {"exec": {"command": [command]}, "periodSeconds": 1, "failureThreshold": 1, **fields}


class Answers(dict[tuple[str, ...], Executed]):
    """What the commands of the world's containers answer, now; `once` goes before."""

    def __init__(self, world: PodWorld, **known: Executed) -> None:
        super().__init__({(name,): answer for name, answer in known.items()})
        self.once: dict[str, Executed] = {}
        self.term_code: int | None = 0
        world.runtime.program = lambda _: Program(execs=self, term_code=self.term_code)

    def get(self, key: Any, default: Any = None) -> Any:
        return self.once.pop(key[0], None) or super().get(key, default)

    def set(self, name: str, answer: Executed) -> None:
        self[name,] = answer


def events(world: PodWorld, reason: str) -> list[str]:
    return [event.message for event in world.api.events if event.reason == reason]


async def test_a_pod_is_ready_when_its_container_says_so_and_only_then() -> None:
    async with pod_world() as world:
        answers = Answers(world, ready=BAD)
        await world.create(pod("web", container(readinessProbe=probe("ready"))))
        assert world.status()["phase"] == "Running"
        assert world.condition("Ready") == "False"
        assert events(world, "Unhealthy") == ["Readiness probe failed: not well"]
        answers.set("ready", GOOD)
        await world.advance(1)
        assert world.condition("Ready") == "True"
        answers.set("ready", BAD)
        await world.advance(1)
        assert world.condition("Ready") == "False"
        assert world.container_status()["restartCount"] == 0


async def test_a_container_that_does_not_live_is_restarted() -> None:
    async with pod_world() as world:
        answers = Answers(world, live=GOOD)
        await world.create(
            pod("web", container(livenessProbe=probe("live", terminationGracePeriodSeconds=7)))
        )
        first = world.running()
        answers.once["live"] = BAD
        await world.advance(3)
        assert world.runtime.containers[first].stops[0][0] == 7
        assert world.running() != first
        assert world.container_status()["restartCount"] == 1
        assert events(world, "Killing") == [
            "Container app failed liveness probe, will be restarted"
        ]
        await world.advance(60)
        assert world.container_status()["restartCount"] == 1


async def test_a_container_that_never_starts_is_restarted() -> None:
    async with pod_world() as world:
        Answers(world, start=BAD, live=BAD)
        await world.create(
            pod(
                "web",
                container(
                    startupProbe=probe("start", failureThreshold=3), livenessProbe=probe("live")
                ),
            )
        )
        assert not world.container_status()["started"]
        await world.advance(4)
        assert world.container_status()["restartCount"] == 1
        told = "Container app failed startup probe, will be restarted"
        assert set(events(world, "Killing")) == {told}


async def test_a_sidecar_lets_the_others_start_once_it_has_started() -> None:
    async with pod_world() as world:
        answers = Answers(world, start=BAD)
        sidecar = container(
            "proxy", restartPolicy="Always", startupProbe=probe("start", failureThreshold=30)
        )
        await world.create(pod("web", container(), initContainers=[sidecar]))
        await world.advance(2)
        assert world.started() == ["proxy"]
        answers.set("start", GOOD)
        await world.advance(1)
        assert world.started() == ["proxy", "app"]
        assert world.condition("Ready") == "True"


async def test_a_terminating_pod_is_not_restarted_and_goes_out_of_service() -> None:
    async with pod_world() as world:
        answers = Answers(world, live=GOOD, ready=GOOD)
        answers.term_code = None
        await world.create(
            pod("web", container(livenessProbe=probe("live"), readinessProbe=probe("ready")))
        )
        assert world.condition("Ready") == "True"
        world.api.request_deletion("web", grace_s=20)
        answers.set("live", BAD)
        answers.set("ready", BAD)
        await world.advance(5)
        assert world.condition("Ready") == "False"
        assert world.container_status()["restartCount"] == 0
        await world.advance(20)
        assert world.api.pods == {}


async def test_a_restart_of_the_node_leaves_a_ready_pod_ready() -> None:
    async with pod_world() as world:
        Answers(world, ready=GOOD, start=GOOD)
        await world.create(
            pod("web", container(startupProbe=probe("start"), readinessProbe=probe("ready")))
        )
        assert world.condition("Ready") == "True"
        seen: list[str] = []
        await world.kill_node()
        record, patch = world.api.patch, world.api.patch

        async def watched(path: str, body: Any, **rest: Any) -> Any:
            seen.extend(
                condition["status"]
                for condition in (body.get("status") or {}).get("conditions") or ()
                if condition.get("type") in ("Ready", "ContainersReady")
            )
            return await record(path, body, **rest)

        world.api.patch = watched  # type: ignore[method-assign]
        await world.start_node()
        await world.advance(3)
        world.api.patch = patch  # type: ignore[method-assign]
        assert "False" not in seen
        assert world.condition("Ready") == "True"


async def test_a_failed_post_start_hook_restarts_the_container() -> None:
    async with pod_world() as world:
        answers = Answers(world, hook=BAD)
        lifecycle = {"postStart": {"exec": {"command": ["hook"]}}}
        await world.create(pod("web", container(lifecycle=lifecycle)))
        assert set(events(world, "FailedPostStartHook")) == {"PostStartHook failed"}
        answers.set("hook", GOOD)
        await world.advance(11)
        await world.advance(1)
        assert world.condition("Ready") == "True"
        assert world.container_status()["restartCount"] >= 1


async def test_a_pre_stop_hook_runs_before_the_signal_and_spends_the_grace() -> None:
    async with pod_world() as world:
        Answers(world)
        lifecycle = {"preStop": {"sleep": {"seconds": 6}}}
        await world.create(pod("web", container(lifecycle=lifecycle)))
        app = world.runtime.containers[world.running()]
        world.api.request_deletion("web", grace_s=10)
        await world.advance(5)
        assert not app.stops
        await world.advance(2)
        assert app.stops[0][0] == 4
        assert world.api.pods == {}
