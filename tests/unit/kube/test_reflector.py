from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.api_stub import Answer, ApiStub, Stream, status
from tests.support.fake_clock import FakeClock
from vk_provider.common.errors import Unavailable, VkError
from vk_provider.kube.client import KubeClient
from vk_provider.kube.reflector import Reflector

PATH = "/api/v1/pods"


def pod(name: str, version: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version}}


def listed(version: str, *names: str, **metadata: str) -> dict[str, Any]:
    return {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": version, **metadata},
        "items": [pod(n, "1") for n in names],
    }


class Picture:
    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[str, list[str]]] = asyncio.Queue()

    def replace(self, objects: list[dict[str, Any]]) -> None:
        assert all(o["kind"] == "Pod" and o["apiVersion"] == "v1" for o in objects)
        self.calls.put_nowait(("replace", [o["metadata"]["name"] for o in objects]))

    def upsert(self, obj: dict[str, Any]) -> None:
        self.calls.put_nowait(("upsert", [obj["metadata"]["name"]]))

    def delete(self, obj: dict[str, Any]) -> None:
        self.calls.put_nowait(("delete", [obj["metadata"]["name"]]))


@asynccontextmanager
async def reflecting(
    client: KubeClient, clock: FakeClock, failures: list[VkError] | None = None
) -> AsyncIterator[Picture]:
    picture = Picture()
    note = failures.append if failures is not None else None
    reflector = Reflector(client, PATH, {"a": "b"}, picture, clock, on_failure=note)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(reflector.run()), tasks.create_task(pass_time(clock))]
        yield picture
        for task in running:
            task.cancel()


async def pass_time(clock: FakeClock) -> None:
    """End every pause as soon as it begins."""
    while True:
        await clock.wait_for_sleeper()
        await clock.advance(10)


async def test_lists_in_pages_then_follows(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("GET", PATH, listed("3", "a", **{"continue": "next"}), listed("3", "b"))
    events = [
        {"type": "ADDED", "object": pod("c", "4")},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
        {"type": "DELETED", "object": pod("a", "10")},
    ]
    api.on("WATCH", PATH, Stream(events), Stream([], asyncio.Event()))
    async with reflecting(client, clock) as picture:
        assert await picture.calls.get() == ("replace", ["a", "b"])
        assert await picture.calls.get() == ("upsert", ["c"])
        assert await picture.calls.get() == ("delete", ["a"])
        watches = await api.count("WATCH", PATH, 2)
        assert [w.query["resourceVersion"] for w in watches] == ["3", "10"]
        assert watches[0].query["allowWatchBookmarks"] == "true"
        assert watches[0].query["a"] == "b"
    assert api.of("GET", PATH)[1].query["continue"] == "next"


async def test_a_version_no_longer_kept_has_it_list_again(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("GET", PATH, listed("3", "a"), listed("20", "b"))
    gone = {"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}
    api.on("WATCH", PATH, Stream([gone]), Stream([], asyncio.Event()))
    async with reflecting(client, clock) as picture:
        assert await picture.calls.get() == ("replace", ["a"])
        assert await picture.calls.get() == ("replace", ["b"])


async def test_failures_are_told_and_repeated_without_a_new_list(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    failures: list[VkError] = []
    api.on("GET", PATH, listed("3", "a"))
    api.on(
        "WATCH",
        PATH,
        status(503, "ServiceUnavailable"),
        Answer(b"", 502),
        Stream([{"type": "MODIFIED", "object": pod("a", "4")}], asyncio.Event()),
    )
    async with reflecting(client, clock, failures) as picture:
        assert await picture.calls.get() == ("replace", ["a"])
        assert await picture.calls.get() == ("upsert", ["a"])
    assert len(failures) == 2
    assert all(isinstance(f, Unavailable) for f in failures)
    assert len(api.of("GET", PATH)) == 1


async def test_a_refused_list_is_repeated(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("GET", PATH, status(403, "Forbidden"), listed("3"))
    api.on("WATCH", PATH, Stream([], asyncio.Event()))
    async with reflecting(client, clock) as picture:
        assert await picture.calls.get() == ("replace", [])
