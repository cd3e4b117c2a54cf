"""One real agent for all tests of a module, and pods of each test's own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support.real_agent import RealAgent, real_agent
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.runtime.grpc_client import AgentClient
from vk_provider.runtime.ids import container_id, sandbox_id

WAIT_S = 60


@dataclass
class Pod:
    """One pod with a VM of its own, driven as the node would."""

    client: AgentClient
    agent: RealAgent
    uid: str

    @property
    def sandbox_id(self) -> str:
        return sandbox_id(self.uid, 0)

    def container_id(self, name: str = "main") -> str:
        return container_id(self.sandbox_id, name, 0)

    async def run(self, hostname: str = "pod", **fields: Any) -> pb.SandboxStatus:
        metadata = pb.PodMetadata(namespace="test", name="pod", uid=self.uid)
        return await self.client.run_sandbox(
            pb.RunSandboxRequest(
                sandbox_id=self.sandbox_id,
                pod=metadata,
                hostname=hostname,
                resolv_conf="nameserver 192.0.2.53\n",
                **{"size_override": "0.25x512Mi", **fields},
            )
        )

    async def start(self, script: str, name: str = "main", **fields: Any) -> str:
        """Start a container that runs a shell script; return its id."""
        image = ""
        async for progress in self.client.pull_image(self.agent.busybox):
            image = progress.image.image_ref
        config = pb.ContainerConfig(
            container_id=self.container_id(name),
            name=name,
            image=self.agent.busybox,
            image_ref=image,
            command=["sh", "-c", script],
            **fields,
        )
        request = pb.CreateContainerRequest(sandbox_id=self.sandbox_id, config=config)
        await self.client.create_container(request)
        await self.client.start_container(config.container_id)
        return config.container_id

    async def exited(self, name: str = "main") -> pb.ContainerStatus:
        """Return a container's status once it has exited."""
        listed = await self.client.list_sandboxes(self.sandbox_id)
        async with (
            asyncio.timeout(WAIT_S),
            aclosing(self.client.watch_events(listed.event_seq)) as events,
        ):
            while True:
                for status in listed.sandboxes[0].containers:
                    if status.name == name and status.state == pb.CONTAINER_EXITED:
                        return status
                await anext(events)
                listed = await self.client.list_sandboxes(self.sandbox_id)

    async def status(self) -> pb.SandboxStatus:
        return (await self.client.list_sandboxes(self.sandbox_id)).sandboxes[0]

    async def logs(self, name: str = "main", **fields: Any) -> str:
        request = pb.ReadLogsRequest(container_id=self.container_id(name), **fields)
        return b"".join([data async for data in self.client.read_logs(request)]).decode()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAgent]:
    with real_agent(tmp_path_factory.mktemp("agent")) as running:
        yield running


@pytest_asyncio.fixture
async def client(agent: RealAgent) -> AsyncIterator[AgentClient]:
    async with AgentClient(agent.target) as connected:
        yield connected
        for sandbox in (await connected.list_sandboxes()).sandboxes:
            await connected.remove_sandbox(sandbox.sandbox_id)


@pytest.fixture
def pod(agent: RealAgent, client: AgentClient) -> Pod:
    return Pod(client, agent, str(uuid.uuid4()))
