"""Leaving: what is asked of the API server, in which order, and what is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_stub import Answer, ApiStub, Live, api_stub, status, write_kubeconfig
from tests.support.fake_clock import FakeClock
from vk_provider.common.errors import DeadlineExceeded, PermissionDenied
from vk_provider.kube.client import KubeClient
from vk_provider.node.leaving import Departure

NODE = "/api/v1/nodes/n"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n"
PODS = "/api/v1/pods"


def pod(name: str, *, daemon: bool = False, **metadata: Any) -> dict[str, Any]:
    if daemon:
        metadata["ownerReferences"] = [{"kind": "DaemonSet", "name": "d", "controller": True}]
    return {"metadata": {"namespace": "ns", "name": name, "uid": name, **metadata}}


def path(name: str, what: str = "") -> str:
    return f"/api/v1/namespaces/ns/pods/{name}{what}"


class Bed:
    """A stub, a departure from it, and what was said."""

    def __init__(self, api: ApiStub, client: KubeClient) -> None:
        self.api = api
        self.client = client
        self.clock = FakeClock()
        self.said: list[str] = []
        self.events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.departure = Departure(client, "n", self.clock, self.said.append)
        api.on("WATCH", PODS, Live(self.events))

    def has(self, *pods: dict[str, Any]) -> None:
        listed = {"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": list(pods)}
        self.api.on("GET", PODS, listed)

    def goes(self, name: str) -> None:
        self.events.put_nowait({"type": "DELETED", "object": pod(name)})

    def comes(self, obj: dict[str, Any]) -> None:
        self.events.put_nowait({"type": "ADDED", "object": obj})

    @asynccontextmanager
    async def emptying(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.departure.empty(60))
            yield


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with api_stub() as api:
        config = write_kubeconfig(tmp_path / "kubeconfig", api.url)
        client = await KubeClient.from_kubeconfig(config, user_agent="test/1")
        made = Bed(api, client)
        yield made
        made.events.put_nowait(None)
        await client.close()


async def test_a_node_of_no_pods_is_empty_at_once(bed: Bed) -> None:
    bed.has()
    await bed.departure.empty(60)
    assert [s.query["fieldSelector"] for s in bed.api.of("GET", PODS)] == ["spec.nodeName=n"]


async def test_no_new_pods_come(bed: Bed) -> None:
    bed.api.on("PATCH", NODE, {})
    await bed.departure.cordon()
    assert bed.api.seen[0].body == {"spec": {"unschedulable": True}}


async def test_pods_are_evicted_and_waited_for(bed: Bed) -> None:
    bed.has(pod("a"), pod("b"), pod("gone"), pod("leaving", deletionTimestamp="t"))
    for name in ("a", "b", "late"):
        bed.api.on("POST", path(name, "/eviction"), {})
    bed.api.on("POST", path("gone", "/eviction"), status(404, "NotFound", kind="x"))
    async with bed.emptying():
        (asked,) = await bed.api.count("POST", path("a", "/eviction"), 1)
        await bed.api.count("POST", path("b", "/eviction"), 1)
        await bed.api.count("POST", path("gone", "/eviction"), 1)
        bed.comes(pod("late"))  # bound before the scheduler saw that the node is unschedulable
        await bed.api.count("POST", path("late", "/eviction"), 1)
        for name in ("a", "b", "gone", "leaving", "late"):
            bed.goes(name)
    assert asked.body["kind"] == "Eviction"
    assert asked.body["deleteOptions"] == {"preconditions": {"uid": "a"}}
    assert not bed.api.of("POST", path("leaving", "/eviction"))
    assert sorted(bed.said) == [f"Ending ns/{name}" for name in ("a", "b", "gone", "late")]


async def test_a_disruption_budget_is_waited_for_and_told_once(bed: Bed) -> None:
    bed.has(pod("a"))
    refused = status(429, "TooManyRequests", "it would violate the pod's disruption budget")
    bed.api.on("POST", path("a", "/eviction"), refused, refused, {})
    async with bed.emptying():
        for asked in (1, 2):
            await bed.api.count("POST", path("a", "/eviction"), asked)
            await bed.clock.wait_for_sleeper()
            await bed.clock.advance(5)
        await bed.api.count("POST", path("a", "/eviction"), 3)
        bed.goes("a")
    told = [line for line in bed.said if "stays for now" in line]
    assert len(told) == 1
    assert "disruption budget" in told[0]


async def test_pods_of_daemon_sets_go_last_and_their_successors_are_not_waited_for(
    bed: Bed,
) -> None:
    bed.has(pod("daemon", daemon=True), pod("a"))
    bed.api.on("POST", path("a", "/eviction"), {})
    bed.api.on("DELETE", path("daemon"), {})
    async with bed.emptying():
        await bed.api.count("POST", path("a", "/eviction"), 1)
        assert not bed.api.of("DELETE", path("daemon"))
        bed.goes("a")
        (deleted,) = await bed.api.count("DELETE", path("daemon"), 1)
        bed.comes(pod("successor", daemon=True))
        bed.goes("daemon")
    assert deleted.body == {"preconditions": {"uid": "daemon"}}
    assert not bed.api.of("POST", path("daemon", "/eviction"))


async def test_who_is_left_after_the_time_is_named(bed: Bed) -> None:
    bed.has(pod("a"), pod("b"))
    bed.api.on("POST", path("a", "/eviction"), {})
    bed.api.on("POST", path("b", "/eviction"), {})
    with pytest.raises(DeadlineExceeded, match=r"still on node n: ns/a, ns/b\. .* unschedulable"):
        await bed.departure.empty(0.5)


async def test_a_right_that_is_missing_ends_it(bed: Bed) -> None:
    bed.has(pod("a"))
    bed.api.on("POST", path("a", "/eviction"), status(403, "Forbidden", "may not evict"))

    async def time() -> None:
        while True:
            await bed.clock.wait_for_sleeper()
            await bed.clock.advance(1)

    async with asyncio.TaskGroup() as tasks:
        passing = tasks.create_task(time())
        with pytest.raises(ExceptionGroup) as caught:
            await bed.departure.empty(60)
        passing.cancel()
    assert isinstance(caught.value.exceptions[0], PermissionDenied)


async def test_lease_and_node_are_deleted(bed: Bed) -> None:
    bed.api.on("DELETE", LEASE, {})
    bed.api.on("DELETE", NODE, {})
    assert await bed.departure.remove(None)
    assert [s.path for s in bed.api.seen] == [LEASE, NODE]
    assert bed.said == ["Lease n is deleted", "Node n is deleted"]


async def test_what_is_gone_already_is_no_trouble(bed: Bed) -> None:
    assert not await bed.departure.is_member()
    assert await bed.departure.remove(None)


async def test_without_the_right_an_administrator_is_told_what_to_do(bed: Bed) -> None:
    bed.api.on("DELETE", LEASE, {})
    bed.api.on("DELETE", NODE, status(403, "Forbidden", "system:node:n cannot delete nodes"))
    assert not await bed.departure.remove(None)
    assert "kubectl delete node n" in bed.said[-1]
    assert "--admin-kubeconfig" in bed.said[-1]


async def test_an_administrators_kubeconfig_does_it(bed: Bed, tmp_path: Path) -> None:
    for thing in (LEASE, NODE):
        bed.api.on("DELETE", thing, Answer({}))
    config = write_kubeconfig(tmp_path / "admin", bed.api.url, token="of-an-admin")
    admin = await KubeClient.from_kubeconfig(config, user_agent="test/1")
    assert await bed.departure.remove(admin)
    await admin.close()
    assert {s.headers["Authorization"] for s in bed.api.seen} == {"Bearer of-an-admin"}
