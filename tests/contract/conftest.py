"""The runtimes that the contract is kept by."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.real_agent import RealAgent, real_agent
from tests.support.runtime_server import served
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import SystemClock
from vk_provider.runtime.api import Runtime
from vk_provider.runtime.fake import FakeRuntime
from vk_provider.runtime.fake_records import Executed, FakeImage, Program
from vk_provider.runtime.grpc_client import AgentClient
from vk_provider.runtime.ids import container_id, sandbox_id


@dataclass
class Subject:
    """A runtime under test, an image it can pull, and a pod of its own."""

    runtime: Runtime
    image: str
    uid: str

    def sandbox_request(self, attempt: int = 0) -> pb.RunSandboxRequest:
        return pb.RunSandboxRequest(
            sandbox_id=sandbox_id(self.uid, attempt),
            pod=pb.PodMetadata(namespace="contract", name="pod", uid=self.uid),
            attempt=attempt,
            hostname="pod",
            resolv_conf="nameserver 192.0.2.53\n",
            annotations={"note": "kept"},
        )

    async def pull(self) -> pb.Image:
        last = None
        async for progress in self.runtime.pull_image(self.image):
            last = progress
        assert last is not None and last.HasField("image")
        return last.image

    async def container(self, command: list[str], name: str = "c") -> pb.CreateContainerRequest:
        image = await self.pull()
        box = sandbox_id(self.uid, 0)
        return pb.CreateContainerRequest(
            sandbox_id=box,
            config=pb.ContainerConfig(
                container_id=container_id(box, name, 0),
                name=name,
                image=self.image,
                image_ref=image.image_ref,
                command=command,
            ),
        )

    async def start(self, command: list[str], name: str = "c") -> str:
        request = await self.container(command, name)
        await self.runtime.create_container(request)
        await self.runtime.start_container(request.config.container_id)
        return request.config.container_id


def _program(config: pb.ContainerConfig) -> Program:
    """Play the few commands that the contract uses as a shell would."""
    execs = {
        ("true",): Executed(),
        ("sh", "-c", "echo out; echo err >&2; exit 3"): Executed(3, b"out\n", b"err\n"),
    }
    match list(config.command):
        case ["sleep", _]:
            return Program(term_code=None, execs=execs)
        case ["sh", "-c", text] if text.startswith("echo hello; exit "):
            return Program(run_s=0, exit_code=int(text.rpartition(" ")[2]), output=b"hello\n")
        case ["no-such-command"]:
            return Program(start_error='exec: "no-such-command": not found in $PATH')
    raise AssertionError(f"the contract uses no {config.command}")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAgent]:
    with real_agent(tmp_path_factory.mktemp("contract")) as running:
        yield running


@pytest.fixture(
    params=["fake", "fake over gRPC", pytest.param("agent", marks=pytest.mark.vm)],
)
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    uid = str(uuid.uuid4())
    if request.param == "agent":
        agent: RealAgent = request.getfixturevalue("agent")  # only here: it takes seconds
        async with AgentClient(agent.target) as client:
            yield Subject(client, agent.busybox, uid)
            for sandbox in (await client.list_sandboxes(pod_uid=uid)).sandboxes:
                await client.remove_sandbox(sandbox.sandbox_id)
        return
    async with FakeRuntime(SystemClock()) as fake:
        fake.registry["registry.test/busybox:1"] = FakeImage()
        fake.program = _program
        if request.param == "fake":
            yield Subject(fake, "registry.test/busybox:1", uid)
            return
        async with served(fake, tmp_path) as target, AgentClient(target) as client:
            yield Subject(client, "registry.test/busybox:1", uid)
