"""Probes of containers that come, run and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.fake_clock import FakeClock
from tests.support.fake_exec import FakeExec
from tests.support.podspecs import container, make_pod
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.probes.manager import ProbeManager, ProbeUpdate
from vk_provider.pods.probes.model import ProbeKind, ProbeResult

GOOD, BAD = pb.ExecExit(code=0), pb.ExecExit(code=1)


def handler(name: str, **fields: Any) -> Any:
    return {"exec": {"command": [name]}} | fields


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.exec = FakeExec()
        self.updates: list[tuple[ProbeKind, ProbeResult]] = []
        self.events: list[tuple[str, str, str]] = []
        self.manager = ProbeManager(
            self.exec.runtime,
            self.clock,
            recorder=self,
            on_result=self._note,
            jitter=lambda: 0.5,
        )

    def _note(self, update: ProbeUpdate) -> None:
        self.updates.append((update.kind, update.result))

    def event(
        self, obj: Any, kind: str, reason: str, message: str, /, *, field_path: str = ""
    ) -> None:
        self.events.append((reason, message, field_path))

    async def run(
        self, container_id: str = "c1", *, kind: str = "containers", **probes: Any
    ) -> None:
        pod = make_pod()
        pod["spec"][kind] = [container(**probes)]
        self.manager.add_pod(pod)
        self.running(container_id)
        await self.clock.settle()

    def running(self, container_id: str = "c1", **known: bool) -> None:
        self.manager.container_running(
            "u-1", "app", container_id, self.clock.now_ns(), "127.0.0.1", **known
        )

    def started(self, container_id: str = "c1") -> bool:
        return self.manager.is_started("u-1", "app", container_id)

    def ready(self, container_id: str = "c1") -> bool:
        return self.manager.is_ready("u-1", "app", container_id)

    def asked(self) -> list[str]:
        asked = [command[0] for command in self.exec.commands]
        self.exec.commands.clear()
        return asked


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(bench.manager.run(), name="probes")
        yield bench
        running.cancel()


async def test_without_probes_a_container_is_started_and_ready(bench: Bench) -> None:
    assert not bench.started("c1") or bench.ready("c1")
    await bench.run()
    assert bench.started()
    assert bench.ready()
    assert bench.manager.result(ProbeKind.LIVENESS, "c1") is None


async def test_readiness_is_asked_at_once_and_then_each_period(bench: Bench) -> None:
    await bench.run(readinessProbe=handler("ready", periodSeconds=10))
    assert bench.ready()
    assert bench.updates == [(ProbeKind.READINESS, ProbeResult.SUCCESS)]
    await bench.clock.advance(25)
    assert bench.asked() == ["ready"] * 3
    assert len(bench.updates) == 1


async def test_nothing_is_asked_before_the_initial_delay(bench: Bench) -> None:
    await bench.run(readinessProbe=handler("ready", initialDelaySeconds=30))
    await bench.clock.advance(29)
    assert bench.asked() == []
    assert not bench.ready()
    await bench.clock.advance(2)
    assert bench.ready()


async def test_readiness_goes_after_enough_failures_and_comes_back(bench: Bench) -> None:
    await bench.run(readinessProbe=handler("ready", periodSeconds=1, failureThreshold=2))
    bench.exec.outcomes = [BAD, BAD, GOOD]
    await bench.clock.advance(1)
    assert bench.ready()
    await bench.clock.advance(1)
    assert not bench.ready()
    await bench.clock.advance(1)
    assert bench.ready()
    message = ("Unhealthy", "Readiness probe failed: ", "spec.containers{app}")
    assert bench.events == [message, message]


async def test_a_failed_liveness_is_told_once_and_not_asked_again(bench: Bench) -> None:
    bench.exec.outcomes = [BAD]
    await bench.run(livenessProbe=handler("live", periodSeconds=2, failureThreshold=3))
    assert bench.asked() == []  # it begins in the middle of its first period
    await bench.clock.advance(30)
    assert bench.asked() == ["live"] * 3
    assert bench.updates == [(ProbeKind.LIVENESS, ProbeResult.FAILURE)]
    assert bench.manager.result(ProbeKind.LIVENESS, "c1") is ProbeResult.FAILURE
    bench.running("c2")
    await bench.clock.advance(2)
    assert bench.manager.result(ProbeKind.LIVENESS, "c1") is None
    assert bench.manager.result(ProbeKind.LIVENESS, "c2") is ProbeResult.SUCCESS
    assert bench.asked() == ["live"]


async def test_until_it_has_started_a_container_is_asked_nothing_else(bench: Bench) -> None:
    bench.exec.outcomes = [BAD, BAD, GOOD]
    await bench.run(
        startupProbe=handler("start", periodSeconds=1, failureThreshold=30),
        readinessProbe=handler("ready", periodSeconds=5),
        livenessProbe=handler("live", periodSeconds=4),
    )
    assert not bench.started()
    await bench.clock.advance(1)
    assert bench.asked() == ["start"] * 2
    await bench.clock.advance(1)
    assert bench.asked() == ["start", "ready"]
    assert bench.started()
    assert bench.ready()
    await bench.clock.advance(2)
    assert bench.asked() == ["live"]
    await bench.clock.advance(20)
    assert "start" not in bench.asked()


async def test_a_failed_startup_is_told_and_nothing_more_is_asked(bench: Bench) -> None:
    bench.exec.outcomes = [BAD]
    await bench.run(
        startupProbe=handler("start", periodSeconds=1, failureThreshold=2),
        readinessProbe=handler("ready"),
    )
    await bench.clock.advance(60)
    assert bench.asked() == ["start"] * 2
    assert bench.updates == [(ProbeKind.STARTUP, ProbeResult.FAILURE)]
    assert not bench.started()


async def test_errors_change_nothing(bench: Bench) -> None:
    await bench.run(readinessProbe=handler("ready", periodSeconds=1, failureThreshold=1))
    bench.exec.outcomes = [pb.ExecExit(code=127, error="gone")]
    await bench.clock.advance(3)
    assert bench.ready()
    assert bench.events[0][1].startswith("Readiness probe errored and resulted in unknown state")


async def test_a_stopped_container_is_asked_nothing_and_its_command_is_ended(
    bench: Bench,
) -> None:
    bench.exec.hold = asyncio.Event()
    await bench.run(readinessProbe=handler("ready", periodSeconds=1))
    assert bench.asked() == ["ready"]
    bench.manager.container_stopped("u-1", "app")
    bench.manager.container_stopped("u-1", "app")
    await bench.clock.advance(10)
    assert bench.exec.cancelled == 1
    assert bench.asked() == []
    assert not bench.ready()


async def test_a_terminating_pod_is_asked_for_readiness_alone(bench: Bench) -> None:
    await bench.run(
        livenessProbe=handler("live", periodSeconds=1),
        readinessProbe=handler("ready", periodSeconds=1),
    )
    await bench.clock.advance(1)
    bench.asked()
    bench.manager.stop_liveness_and_startup("u-1")
    await bench.clock.advance(3)
    assert bench.asked() == ["ready"] * 3
    assert bench.manager.result(ProbeKind.LIVENESS, "c1") is ProbeResult.SUCCESS


async def test_termination_ends_a_startup_probe_and_begins_nothing(bench: Bench) -> None:
    bench.exec.outcomes = [BAD]
    await bench.run(
        startupProbe=handler("start", periodSeconds=1, failureThreshold=99),
        livenessProbe=handler("live", periodSeconds=1),
    )
    bench.manager.stop_liveness_and_startup("u-1")
    bench.asked()
    await bench.clock.advance(10)
    assert bench.asked() == []
    bench.running("c2")
    await bench.clock.advance(10)
    assert bench.asked() == []


async def test_a_restart_of_the_node_takes_nothing_out_of_service(bench: Bench) -> None:
    bench.exec.hold = asyncio.Event()
    pod = make_pod(container(startupProbe=handler("start"), readinessProbe=handler("ready")))
    bench.manager.add_pod(pod)
    assert not bench.started()
    bench.running(was_started=True, was_ready=True)
    await bench.clock.settle()
    assert bench.started()
    assert bench.ready()
    assert bench.asked() == ["ready"]
    assert bench.updates == []


async def test_a_removed_pod_leaves_nothing_behind(bench: Bench) -> None:
    await bench.run(readinessProbe=handler("ready", periodSeconds=1))
    bench.manager.remove_pod("u-1")
    bench.manager.remove_pod("u-1")
    bench.asked()
    await bench.clock.advance(5)
    assert bench.asked() == []
    assert bench.manager.result(ProbeKind.READINESS, "c1") is None


async def test_a_repeated_report_of_the_same_run_changes_nothing(bench: Bench) -> None:
    await bench.run(readinessProbe=handler("ready", periodSeconds=10))
    bench.running()
    await bench.clock.settle()
    assert bench.asked() == ["ready"]
    assert bench.ready()


async def test_a_sidecars_events_name_it_as_an_init_container(bench: Bench) -> None:
    bench.exec.outcomes = [BAD]
    await bench.run(kind="initContainers", restartPolicy="Always", readinessProbe=handler("r"))
    assert [path for _, _, path in bench.events] == ["spec.initContainers{app}"]


async def test_cancelling_the_manager_ends_every_probe() -> None:
    bench = Bench()
    bench.exec.hold = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(bench.manager.run(), name="probes")
        await bench.run(readinessProbe=handler("ready"))
        running.cancel()
    assert bench.exec.cancelled == 1


async def test_reports_about_what_is_not_known_change_nothing(bench: Bench) -> None:
    bench.running()
    bench.manager.add_pod(make_pod(container("other")))
    bench.running()
    await bench.clock.settle()
    assert bench.manager.result(ProbeKind.READINESS, "c1") is None


async def test_answers_are_counted_until_the_container_is_gone(bench: Bench) -> None:
    def count(result: str) -> float | None:
        labels = {
            "probe_type": "Readiness",
            "result": result,
            "container": "app",
            "pod": "web",
            "namespace": "shop",
            "pod_uid": "u-1",
        }
        return bench.manager.metrics.registry.get_sample_value("prober_probe_total", labels)

    bench.exec.outcomes = [GOOD, BAD, GOOD]
    await bench.run(readinessProbe=handler("ready", periodSeconds=1))
    await bench.clock.advance(3)
    assert (count("successful"), count("failed")) == (3, 1)
    bench.running("c2")
    await bench.clock.settle()
    assert count("successful") == 4
    bench.manager.container_stopped("u-1", "app")
    assert count("successful") is None
