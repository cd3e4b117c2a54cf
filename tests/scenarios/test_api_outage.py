"""The API server is away for long, busy, failing or slow, while pods live on and change."""

from __future__ import annotations

import pytest

from tests.support.pod_world import PodWorld, container, pod, pod_world
from vk_provider.common.errors import Unavailable, VkError
from vk_provider.kube.errors import ApiTimeout, ApiUnavailable
from vk_provider.runtime.fake_records import Executed, FakeImage, Program

_PROBE: tuple[str, ...] = ("ready",)
_CREATING = {"run_sandbox", "create_container", "start_container", "stop_container"}


async def _load(world: PodWorld) -> dict[tuple[str, ...], Executed]:
    """Make pods that stay, crash, complete, fail, are being deleted; return what probes find."""
    execs = {_PROBE: Executed(code=1)}
    programs = {
        "stays": Program(execs=execs),
        "crashes": Program(run_s=1, exit_code=1),
        "completes": Program(run_s=30),
        "fails": Program(run_s=30, exit_code=3),
        "leaves": Program(term_code=None),
    }
    for name in programs:
        world.runtime.registry[f"registry.test/{name}:1"] = FakeImage()
    world.runtime.program = lambda config: programs[config.image.split("/")[1].split(":")[0]]
    probe = {
        "exec": {"command": list(_PROBE)},
        "periodSeconds": 10,
        "failureThreshold": 1,
        "successThreshold": 1,
        "timeoutSeconds": 1,
    }
    for number, name in enumerate(programs):
        ends = name in {"completes", "fails"}
        spec = container(image=f"registry.test/{name}:1")
        if name == "stays":
            spec["readinessProbe"] = probe
        policy = "Never" if ends else "Always"
        await world.create(pod(name, spec, uid=f"uid-{number}", restartPolicy=policy))
    await world.advance(2)
    world.api.request_deletion("leaves", grace_s=20)
    await world.settle()
    return execs


def _right(world: PodWorld) -> None:
    """The API shows what is true of each pod of `_load` after a while."""
    assert world.condition("Ready", "stays") == "True"
    assert world.container_status(of="stays")["restartCount"] == 0
    crashed = [c for c in world.runtime.containers.values() if "crashes" in c.config.image]
    attempts = max(c.config.attempt for c in crashed)
    assert attempts >= 2
    assert world.container_status(of="crashes")["restartCount"] == attempts
    assert world.status("completes")["phase"] == "Succeeded"
    assert world.status("fails")["phase"] == "Failed"
    ended = world.container_status(of="fails")["state"]["terminated"]
    assert ended["exitCode"] == 3
    assert ("default", "leaves") not in world.api.pods


async def test_ten_minutes_without_an_api_server() -> None:
    async with pod_world() as world:
        execs = await _load(world)
        (stays,) = [
            id_
            for id_, c in world.runtime.containers.items()
            if c.config.image == "registry.test/stays:1"
        ]
        world.api.go_away()
        execs[_PROBE] = Executed()
        await world.advance(600)
        assert not world.runtime.containers[stays].stops
        assert world.condition("Ready", "stays") == "False", "nobody could be told"
        world.api.come_back()
        await world.advance(10)
        _right(world)
        assert not world.runtime.containers[stays].stops


@pytest.mark.parametrize(
    "trouble",
    [
        ApiUnavailable("busy", status=429, reason="TooManyRequests", retry_after_s=1),
        ApiUnavailable("broken", status=500, reason="InternalError"),
        ApiTimeout("too slow", status=504, reason="Timeout"),
        Unavailable("the connection broke off"),
    ],
    ids=["429", "500", "504", "cut"],
)
async def test_a_server_that_answers_with_errors_alone(trouble: VkError) -> None:
    async with pod_world() as world:
        execs = await _load(world)
        world.api.go_away(trouble)
        execs[_PROBE] = Executed()
        await world.advance(120)
        world.api.come_back()
        await world.advance(10)
        _right(world)


async def test_a_server_that_fails_now_and_then() -> None:
    async with pod_world() as world:
        execs = await _load(world)
        execs[_PROBE] = Executed()
        for _ in range(15):
            world.api.go_away(ApiUnavailable("broken", status=500))
            await world.advance(1.5)
            world.api.come_back()
            await world.advance(1.5)
        await world.advance(10)
        _right(world)


async def test_a_slow_server_is_sent_the_newest_status_alone() -> None:
    async with pod_world() as world:
        execs = {_PROBE: Executed(code=1)}
        world.runtime.program = lambda _: Program(execs=execs)
        probe = {
            "exec": {"command": list(_PROBE)},
            "periodSeconds": 1,
            "failureThreshold": 1,
            "successThreshold": 1,
            "timeoutSeconds": 1,
        }
        await world.create(pod("web", container(readinessProbe=probe)))
        await world.advance(2)
        world.api.slow_s = 20.0
        before = len(world.api.patches)
        for second in range(100):  # it changes ten times faster than the server answers
            execs[_PROBE] = Executed(code=second // 2 % 2)
            await world.advance(1)
        execs[_PROBE] = Executed()
        await world.advance(45)
        assert len(world.api.patches) - before <= 7
        assert world.condition("Ready") == "True"
        assert world.container_status()["restartCount"] == 0


async def test_an_agent_and_a_server_away_together() -> None:
    async with pod_world() as world:
        execs = await _load(world)
        await world.advance(30)
        world.api.go_away()
        world.runtime.go_away()
        execs[_PROBE] = Executed()
        await world.advance(300)
        world.runtime.calls.clear()
        world.api.come_back()
        await world.advance(20)
        assert world.status("stays")["phase"] == "Running", "unknown is not failed"
        assert not {call for call, _ in world.runtime.calls} & _CREATING
        world.runtime.come_back()
        await world.advance(60)
        _right(world)
