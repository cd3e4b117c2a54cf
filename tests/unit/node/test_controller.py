from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_stub import ApiStub, Stream, api_stub, status, write_kubeconfig
from tests.support.fake_clock import FakeClock
from vk_provider.common.errors import PermissionDenied
from vk_provider.kube.client import KubeClient
from vk_provider.kube.events import EventRecorder
from vk_provider.node.controller import NodeController
from vk_provider.node.lease import LeaseKeeper
from vk_provider.node.settings import NodeSettings
from vk_provider.runtime.fake import FakeRuntime

SETTINGS = NodeSettings("n", ("192.0.2.1",))
NODE = "/api/v1/nodes/n"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def api() -> AsyncIterator[ApiStub]:
    async with api_stub() as stub:
        yield stub


@pytest.fixture
async def client(api: ApiStub, tmp_path: Path, clock: FakeClock) -> AsyncIterator[KubeClient]:
    path = write_kubeconfig(tmp_path / "kubeconfig", api.url)
    client = await KubeClient.from_kubeconfig(path, user_agent="test/1", clock=clock)
    yield client
    await client.close()


def node(uid: str = "u1", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "n", "uid": uid, "resourceVersion": "5", "labels": {}},
        "spec": spec,
        "status": {},
    }


@asynccontextmanager
async def running(
    client: KubeClient, clock: FakeClock
) -> AsyncIterator[tuple[NodeController, FakeRuntime]]:
    async with FakeRuntime(clock) as runtime:
        controller = NodeController(
            client, runtime, EventRecorder(client, "n", clock), SETTINGS, clock
        )
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(controller.run())
            yield controller, runtime
            task.cancel()


def script(api: ApiStub, current: dict[str, Any], *events: dict[str, Any]) -> asyncio.Event:
    """Let the Node be created, listed and patched; later events wait for the returned event."""
    stay = asyncio.Event()
    api.on("POST", "/api/v1/nodes", current)
    api.on("PATCH", f"{NODE}/status", current)
    listed = {"kind": "NodeList", "metadata": {"resourceVersion": "5"}, "items": [current]}
    api.on("GET", "/api/v1/nodes", listed)
    api.on("WATCH", "/api/v1/nodes", Stream(list(events), stay))
    api.on("GET", f"{LEASES}/n", {"metadata": {"name": "n", "resourceVersion": "1"}})
    api.on("PUT", f"{LEASES}/n", {"metadata": {"name": "n", "resourceVersion": "2"}})
    return stay


async def test_registers_reports_and_hands_on_the_pod_cidrs(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    script(api, node(podCIDRs=["10.0.1.0/24"]))
    async with running(client, clock) as (controller, runtime):
        await controller.wait_registered()
        (patched, *_) = await api.count("PATCH", f"{NODE}/status", 1)
        await api.count("PUT", f"{LEASES}/n", 1)
        assert controller.addresses == ("192.0.2.1",)
        ready = patched.body["status"]["conditions"][-1]
        assert (ready["type"], ready["status"]) == ("Ready", "True")
        await api.count("PATCH", f"{NODE}/status", 2)
    assert runtime.pod_cidrs == ["10.0.1.0/24"]
    (created,) = api.of("POST", "/api/v1/nodes")
    assert created.body["metadata"]["labels"]["type"] == "virtual-kubelet"


async def test_a_node_that_exists_is_taken_over(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("POST", "/api/v1/nodes", status(409, "AlreadyExists"))
    api.on("GET", NODE, node("old"))
    script(api, node("old"))
    async with running(client, clock) as (controller, _):
        await controller.wait_registered()
        found = controller.node()
        assert found is not None
        assert found["metadata"]["uid"] == "old"


async def test_a_node_without_rights_is_told_the_first_that_it_lacks(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("POST", "/api/v1/nodes", status(403, "Forbidden", "may not create nodes"))
    api.on("GET", NODE, status(403, "Forbidden", "may not get nodes"))
    async with FakeRuntime(clock) as runtime:
        recorder = EventRecorder(client, "n", clock)
        controller = NodeController(client, runtime, recorder, SETTINGS, clock)
        with pytest.raises(PermissionDenied, match="may not create nodes"):
            await controller._register()


async def test_a_deleted_node_is_registered_again(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    script(api, node(), {"type": "DELETED", "object": node()})
    async with running(client, clock):
        await api.count("POST", "/api/v1/nodes", 2)
        # Its Lease is renewed at once: it names the new Node before the old one's is collected.
        await api.count("PUT", f"{LEASES}/n", 1)


async def test_a_cordon_is_told(api: ApiStub, client: KubeClient, clock: FakeClock) -> None:
    script(api, node(unschedulable=True))
    told: list[str] = []
    recorder = EventRecorder(client, "n", clock)
    recorder.event = lambda *args, **_: told.append(args[2])  # type: ignore[method-assign]
    async with FakeRuntime(clock) as runtime:
        controller = NodeController(client, runtime, recorder, SETTINGS, clock)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(controller.run())
            await api.count("PATCH", f"{NODE}/status", 1)
            await clock.settle()
            await clock.advance(11)
            await api.count("PATCH", f"{NODE}/status", 2)
            task.cancel()
    assert told.count("NodeNotSchedulable") == 1


async def test_an_agent_away_at_the_start_leaves_the_node_not_ready_until_it_comes(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    script(api, node())
    async with FakeRuntime(clock) as runtime:
        runtime.go_away()
        controller = NodeController(
            client, runtime, EventRecorder(client, "n", clock), SETTINGS, clock
        )
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(controller.run())
            (patched, *_) = await api.count("PATCH", f"{NODE}/status", 1)
            ready = patched.body["status"]["conditions"][-1]
            assert (ready["status"], ready["reason"]) == ("False", "KubeletNotReady")
            assert "container runtime is down" in ready["message"]
            assert controller.host is None
            runtime.come_back()
            await clock.advance(11)
            assert (await controller.wait_host()).cpu_milli == 4000
            task.cancel()


async def test_an_agent_that_restarts_leaves_the_node_ready_and_one_that_stays_away_does_not(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    script(api, node())
    async with running(client, clock) as (_, runtime):
        await api.count("PATCH", f"{NODE}/status", 1)
        await clock.wait_for_sleeper()
        runtime.go_away()
        for _ in range(3):  # two of its own looks, and one at the end of its events
            await clock.advance(9)
        assert all(_ready(s.body) == "True" for s in api.of("PATCH", f"{NODE}/status"))
        while _ready(api.of("PATCH", f"{NODE}/status")[-1].body) == "True":
            await clock.wait_for_sleeper()
            await clock.advance(10)
        runtime.come_back()
        while _ready(api.of("PATCH", f"{NODE}/status")[-1].body) != "True":
            await clock.wait_for_sleeper()
            await clock.advance(10)


def _ready(patch: dict[str, Any]) -> str:
    (found,) = [c["status"] for c in patch["status"]["conditions"] if c["type"] == "Ready"]
    return str(found)


async def test_a_lease_is_made_renewed_and_made_anew(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    made = {"metadata": {"name": "n", "resourceVersion": "1"}}
    api.on("GET", f"{LEASES}/n", status(404, "NotFound"))
    api.on("POST", LEASES, made, made)
    api.on("PUT", f"{LEASES}/n", copy.deepcopy(made), status(404, "NotFound"))
    uids = iter(["", "u1", "u2", "u2"])
    lease = LeaseKeeper(client, SETTINGS, clock, lambda: next(uids))
    await lease.renew()
    await lease.renew()
    await lease.renew()
    first, again = api.of("POST", LEASES)
    assert "ownerReferences" not in first.body["metadata"]
    assert first.body["spec"]["leaseDurationSeconds"] == 40
    assert first.body["spec"]["renewTime"] == "2023-11-14T22:13:20.000000Z"
    assert again.body["metadata"]["ownerReferences"][0]["uid"] == "u2"
    put = api.of("PUT", f"{LEASES}/n")[0]
    assert put.body["metadata"]["resourceVersion"] == "1"
    assert put.body["metadata"]["ownerReferences"][0]["uid"] == "u1"


async def test_a_server_that_holds_a_renewal_does_not_hold_up_the_next(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    stay = asyncio.Event()
    made = {"metadata": {"name": "n", "resourceVersion": "1"}}
    api.on("GET", f"{LEASES}/n", made)
    api.on("PUT", f"{LEASES}/n", Stream([], stay), made)
    lease = LeaseKeeper(client, replace(SETTINGS, lease_interval_s=0.1), clock, lambda: "u1")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(lease.run())
        await api.count("PUT", f"{LEASES}/n", 1)
        await clock.wait_for_sleeper()
        await clock.advance(1)
        await api.count("PUT", f"{LEASES}/n", 2)
        task.cancel()
    stay.set()
