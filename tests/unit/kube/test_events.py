from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.api_stub import Answer, ApiStub, status, write_kubeconfig
from tests.support.fake_clock import FakeClock
from vk_provider.kube.client import KubeClient
from vk_provider.kube.event_correlator import Correlator, Observation, Written
from vk_provider.kube.events import EventRecorder, ObjectRef

PATH = "/api/v1/namespaces/ns/events"
POD = {"metadata": {"namespace": "ns", "name": "p", "uid": "u", "resourceVersion": "5"}}


@asynccontextmanager
async def recording(client: KubeClient, clock: FakeClock) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(client, "node", clock)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(recorder.run())
        yield recorder
        task.cancel()


async def test_an_event_is_written_as_a_kubelets(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("POST", PATH, {})
    async with recording(client, clock) as recorder:
        recorder.event(POD, "Normal", "Started", "Container started", field_path="spec.c{a}")
        await recorder.flush(5)
    body = api.seen[0].body
    assert body["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "ns",
        "name": "p",
        "uid": "u",
        "fieldPath": "spec.c{a}",
    }
    assert body["source"] == {"component": "kubelet", "host": "node"}
    assert (body["type"], body["reason"], body["count"]) == ("Normal", "Started", 1)
    assert body["metadata"]["name"].startswith("p.")
    assert body["firstTimestamp"] == "2023-11-14T22:13:20Z"


async def test_repetitions_are_counted_up(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("POST", PATH, {})
    name = f"p.{clock.now_ns():x}"
    api.on("PATCH", f"{PATH}/{name}", {}, {}, status(404, "NotFound"))
    async with recording(client, clock) as recorder:
        for _ in range(4):
            recorder.event(POD, "Warning", "BackOff", "again")
        await recorder.flush(5)
    assert [s.body["count"] for s in api.of("PATCH", f"{PATH}/{name}")] == [2, 3, 4]
    assert len(api.of("POST", PATH)) == 2  # the server had dropped it meanwhile


async def test_a_nodes_event_is_in_the_default_namespace(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("POST", "/api/v1/namespaces/default/events", {})
    async with recording(client, clock) as recorder:
        recorder.event(ObjectRef("Node", "node", uid="n"), "Normal", "Starting", "x" * 5000)
        await recorder.flush(5)
    assert api.seen[0].body["involvedObject"]["kind"] == "Node"
    assert len(api.seen[0].body["message"]) == 1024


async def test_an_event_outlives_an_outage_and_a_refused_one_is_dropped(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("POST", PATH, status(403, "Forbidden"), Answer({}, 503), {})
    async with recording(client, clock) as recorder:
        recorder.event(POD, "Normal", "Lost", "namespace is being deleted")
        recorder.event(POD, "Normal", "Kept", "b")
        await clock.wait_for_sleeper()
        await clock.advance(1)
        await recorder.flush(5)
    assert [s.body["reason"] for s in api.seen] == ["Lost", "Kept", "Kept"]


async def test_events_of_a_long_outage_are_written_afterwards(
    api: ApiStub, tmp_path: Path, clock: FakeClock
) -> None:
    api.on("POST", PATH, {})
    path = write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1")  # nobody listens there
    client = await KubeClient.from_kubeconfig(path, user_agent="test/1", clock=clock)
    async with recording(client, clock) as recorder:
        recorder.event(POD, "Normal", "One", "a")
        recorder.event(POD, "Normal", "Two", "b")
        began = clock.monotonic()
        while clock.monotonic() - began < 600:
            await clock.wait_for_sleeper()
            await clock.advance(5)
        assert not api.seen
        write_kubeconfig(path, api.url)
        await clock.wait_for_sleeper()
        await clock.advance(10)
        await api.count("POST", PATH, 2)
    await client.close()
    assert [s.body["reason"] for s in api.seen] == ["One", "Two"]
    assert all(s.body["firstTimestamp"] == "2023-11-14T22:13:20Z" for s in api.seen)


async def test_a_full_queue_never_blocks(client: KubeClient, clock: FakeClock) -> None:
    recorder = EventRecorder(client, "node", clock)
    for n in range(1001):
        recorder.event(POD, "Normal", "R", str(n))
    assert recorder._dropped == 1


def seen(message: str, reason: str = "R", name: str = "p") -> Observation:
    return Observation((("name", name),), "Normal", reason, message)


def test_many_similar_events_become_one() -> None:
    correlator = Correlator()
    messages = []
    for n in range(12):
        decision = correlator.decide(seen(f"m{n}"), float(n))
        assert decision is not None
        messages.append(decision.message)
        if decision.earlier is None:
            correlator.written(decision, Written("ns", str(n), 1))
    assert messages[8] == "m8"
    assert messages[9:] == [f"(combined from similar events): m{n}" for n in (9, 10, 11)]
    last = correlator.decide(seen("m12"), 13)
    assert last is not None
    assert last.earlier == Written("ns", "9", 1)


def test_after_ten_quiet_minutes_events_are_single_again() -> None:
    correlator = Correlator()
    for n in range(12):
        correlator.decide(seen(f"m{n}"), 0)
    decision = correlator.decide(seen("new"), 601)
    assert decision is not None
    assert decision.message == "new"


def test_an_object_that_never_stops_is_held_back() -> None:
    correlator = Correlator()
    allowed = [correlator.decide(seen("m", f"R{n}"), 0) for n in range(30)]
    assert sum(d is not None for d in allowed) == 25
    assert correlator.decide(seen("m", name="other"), 0) is not None
    assert correlator.decide(seen("m"), 301) is not None
    assert correlator.decide(seen("m"), 301) is None
