"""A node in memory: a fake API, a fake runtime, a fake clock, and the real pod manager."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

from tests.support.fake_api import FakeApi, Json
from tests.support.fake_clock import FakeClock
from vk_provider.kube.client import KubeClient
from vk_provider.pods.manager import PodManager
from vk_provider.pods.settings import PodSettings
from vk_provider.runtime.fake import FakeRuntime
from vk_provider.runtime.fake_records import FakeImage

UID = "11111111-2222-3333-4444-555555555555"


def container(name: str = "app", **fields: Any) -> Json:
    """Return a container's spec as the API defaults it."""
    return {
        "name": name,
        "image": "registry.test/app:1",
        "imagePullPolicy": "IfNotPresent",
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        **fields,
    }


def pod(name: str = "web", *containers: Json, uid: str = UID, **spec: Any) -> Json:
    """Return a pod bound to the node, as the API defaults it."""
    return {
        "metadata": {"name": name, "namespace": "default", "uid": uid},
        "spec": {
            "nodeName": "vk",
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "containers": list(containers) or [container()],
            **spec,
        },
    }


class PodWorld:
    """See the module. `settle` lets everything happen that needs no time."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.api = FakeApi(self.clock)
        self.runtime = FakeRuntime(self.clock)
        self.runtime.registry["registry.test/app:1"] = FakeImage()
        self._task: asyncio.Task[None] | None = None
        self.manager = self._make_manager()

    async def start_node(self) -> None:
        """Start the node's process (anew)."""
        self.manager = self._make_manager()
        self._task = asyncio.get_running_loop().create_task(self.manager.run(), name="node")
        await self.settle()

    async def kill_node(self) -> None:
        """End the node's process at once."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def settle(self) -> None:
        await self.clock.settle(300)
        if self._task is not None and self._task.done():
            self._task.result()

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        await self.settle()

    async def create(self, pod: Json) -> None:
        self.api.create(pod)
        await self.settle()

    def status(self, name: str = "web") -> Json:
        return self.api.status(name)

    def container_status(self, name: str = "app", of: str = "web") -> Json:
        status = self.status(of)
        every = [
            *status.get("containerStatuses", ()),
            *status.get("initContainerStatuses", ()),
            *status.get("ephemeralContainerStatuses", ()),
        ]
        found: Json = next(s for s in every if s["name"] == name)
        return found

    def condition(self, type_: str, name: str = "web") -> str:
        conditions = {c["type"]: c["status"] for c in self.status(name)["conditions"]}
        return str(conditions.get(type_))

    def running(self, name: str = "app") -> str:
        """Return the id of the container of that name that runs."""
        from vk_provider._pb import sandbox_pb2 as pb

        (id_,) = [
            c.status.container_id
            for c in self.runtime.containers.values()
            if c.config.name == name and c.status.state == pb.CONTAINER_RUNNING
        ]
        return id_

    def started(self) -> list[str]:
        """Return the names of containers in the order they were started."""
        ids = [what for call, what in self.runtime.calls if call == "start_container"]
        names = {i: c.config.name for i, c in self.runtime.containers.items()}
        return [names.get(i, "?") for i in ids]

    def _make_manager(self) -> PodManager:
        return PodManager(
            cast("KubeClient", self.api),
            self.runtime,
            self.api,
            cast("Any", self.api),
            self.api,
            PodSettings(node_name="vk", cluster_dns=("192.0.2.10",)),
            self.clock,
        )


@contextlib.asynccontextmanager
async def pod_world() -> AsyncIterator[PodWorld]:
    """Run a node until the block ends; what the runtime runs ends with it."""
    world = PodWorld()
    async with world.runtime:
        await world.start_node()
        try:
            yield world
        finally:
            await world.kill_node()
