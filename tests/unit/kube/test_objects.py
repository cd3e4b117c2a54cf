from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.api_stub import ApiStub, Live, Stream, status
from tests.support.fake_clock import FakeClock
from vk_provider.common.errors import NotFound, PermissionDenied
from vk_provider.kube.client import KubeClient
from vk_provider.kube.objects import ObjectSource
from vk_provider.kube.references import references

MAPS = "/api/v1/namespaces/ns/configmaps"


def config_map(version: str, name: str = "c") -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": name, "resourceVersion": version}}


def service(namespace: str, name: str) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}}


def listed(*items: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": "1"}, "items": list(items)}


def pod(uid: str = "u", *names: str) -> dict[str, Any]:
    volumes = [{"name": n, "configMap": {"name": n}} for n in names or ("c",)]
    return {
        "metadata": {"namespace": "ns", "name": "p", "uid": uid},
        "spec": {"volumes": volumes, "containers": []},
    }


@asynccontextmanager
async def running(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> AsyncIterator[tuple[ObjectSource, asyncio.Queue[tuple[str, ...]]]]:
    api.on("GET", "/api/v1/services", listed(service("default", "kubernetes"), service("ns", "s")))
    api.on("WATCH", "/api/v1/services", Stream([], asyncio.Event()))
    changes: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
    objects = ObjectSource(client, clock, on_change=lambda *key: changes.put_nowait(key))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(objects.run())
        yield objects, changes
        task.cancel()


async def test_what_pods_name_is_watched_and_changes_are_told(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("GET", f"{MAPS}/c", config_map("1"))
    api.on("GET", MAPS, listed(config_map("1")))
    changed = {"type": "MODIFIED", "object": config_map("2")}
    gone = {"type": "DELETED", "object": config_map("3")}
    events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    api.on("WATCH", MAPS, Live(events))
    async with running(api, client, clock) as (objects, changes):
        assert (await objects.config_map("ns", "c"))["metadata"]["resourceVersion"] == "1"
        objects.register_pod(pod())
        assert await objects.config_map("ns", "c")
        # Only now: a change that comes before anybody has read the object is told to nobody.
        for event in (changed, gone):
            events.put_nowait(event)
        assert await changes.get() == ("ConfigMap", "ns", "c")
        (watch,) = await api.count("WATCH", MAPS, 1)
        assert watch.query["fieldSelector"] == "metadata.name=c"
        objects.unregister_pod("u")
        assert not objects._watched


async def test_an_object_at_hand_needs_no_server(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("GET", MAPS, listed(config_map("7")))
    api.on("WATCH", MAPS, Stream([], asyncio.Event()))
    async with running(api, client, clock) as (objects, _):
        objects.register_pod(pod())
        await api.count("WATCH", MAPS, 1)
        found = await objects.config_map("ns", "c")
    assert found["metadata"]["resourceVersion"] == "7"
    assert not api.of("GET", f"{MAPS}/c")


async def test_two_pods_share_a_watch_that_ends_with_the_last(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("GET", MAPS, listed())
    api.on("WATCH", MAPS, Stream([], asyncio.Event()))
    async with running(api, client, clock) as (objects, _):
        objects.register_pod(pod("1"))
        objects.register_pod(pod("2"))
        await api.count("WATCH", MAPS, 1)
        objects.unregister_pod("1")
        assert len(objects._watched) == 1
        objects.register_pod(pod("2", "other"))
        assert [key[2] for key in objects._watched] == ["other"]
        objects.unregister_pod("2")
        objects.unregister_pod("2")
    assert len([w for w in api.seen if w.query.get("fieldSelector") == "metadata.name=c"]) == 2


async def test_a_refusal_for_newness_passes(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("GET", f"{MAPS}/c", status(403, "Forbidden"), config_map("1"))
    objects = ObjectSource(client, clock)
    async with asyncio.TaskGroup() as tasks:
        read = tasks.create_task(objects.config_map("ns", "c"))
        await clock.wait_for_sleeper()
        await clock.advance(1)
    assert read.result() == config_map("1")


async def test_a_refusal_that_stays_is_raised(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("GET", f"{MAPS}/c", status(403, "Forbidden"))
    objects = ObjectSource(client, clock)

    async def time() -> None:
        while True:
            await clock.wait_for_sleeper()
            await clock.advance(1)

    passing = asyncio.ensure_future(time())
    with pytest.raises(PermissionDenied):
        await objects.config_map("ns", "c")
    passing.cancel()


async def test_what_is_not_there_is_not_found(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    objects = ObjectSource(client, clock)
    api.on(
        "GET", "/api/v1/namespaces/ns/secrets/s", status(404, "NotFound", 'secrets "s" not found')
    )
    with pytest.raises(NotFound, match='secrets "s" not found'):
        await objects.secret("ns", "s")


async def test_services_of_a_namespace_come_with_the_masters(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    async with running(api, client, clock) as (objects, _):
        assert [s["metadata"]["name"] for s in await objects.services("ns")] == ["s", "kubernetes"]
        assert [s["metadata"]["name"] for s in await objects.services("default")] == ["kubernetes"]


def test_every_place_in_a_pod_that_names_an_object_counts() -> None:
    spec = {
        "imagePullSecrets": [{"name": "pull"}, {}],
        "volumes": [
            {"configMap": {"name": "v1"}},
            {"secret": {"secretName": "v2"}},
            {
                "projected": {
                    "sources": [
                        {"configMap": {"name": "p1"}},
                        {"secret": {"name": "p2"}},
                        {"downwardAPI": {}},
                    ]
                }
            },
            {"emptyDir": {}},
        ],
        "containers": [
            {
                "envFrom": [{"configMapRef": {"name": "e1"}}, {"secretRef": {"name": "e2"}}],
                "env": [{"name": "plain", "value": "x"}],
            }
        ],
        "initContainers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "i1"}}}]}],
        "ephemeralContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "i2"}}}]}],
    }
    assert references({"spec": spec}) == {
        ("Secret", "pull"),
        ("ConfigMap", "v1"),
        ("Secret", "v2"),
        ("ConfigMap", "p1"),
        ("Secret", "p2"),
        ("ConfigMap", "e1"),
        ("Secret", "e2"),
        ("ConfigMap", "i1"),
        ("Secret", "i2"),
    }
