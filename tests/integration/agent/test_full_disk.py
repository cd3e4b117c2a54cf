"""A real agent whose disk fills up: what runs goes on, what is new is refused until there is room.

On a loop device that holds all that the agent keeps, the logs too.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.integration.agent.conftest import Pod
from tests.support.guest_time import clock_bounds
from tests.support.real_agent import RealAgent, real_agent
from tests.support.small_disk import fill, loop_disk, make_room
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Exhausted
from vk_provider.runtime.exec_sync import exec_sync
from vk_provider.runtime.grpc_client import AgentClient

pytestmark = pytest.mark.vm

# Templates are kept where a GiB is free beside them.
DISK_MIB = 1600
PATIENCE_S = 120.0
TURN_S = 0.002
NO_ROOM = r"[Nn]o space left|make room"
COUNT = "i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done"


class Bed:
    """An agent, its small disk, and what it has said."""

    def __init__(self, agent: RealAgent, disk: Path) -> None:
        self.agent = agent
        self.disk = disk
        self.templates = agent.state_dir / "hypervisor" / "templates"
        self._read = 0

    def pod(self, client: AgentClient) -> Pod:
        return Pod(client, self.agent, str(uuid.uuid4()))

    async def until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, self.agent.tail()
            await asyncio.sleep(TURN_S)

    def mark(self) -> None:
        """From here on `until_said` looks."""
        self._read = len(self.agent.output.read_text())

    async def until_said(self, *words: str) -> None:
        """Wait for a line of the agent's log with all of these words."""

        def found() -> bool:
            lines = self.agent.output.read_text()[self._read :].splitlines()
            return any(all(word in line for word in words) for line in lines)

        await self.until(found)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder = tmp_path_factory.mktemp("full")
    with loop_disk(folder, DISK_MIB, "state", "pods") as disk, real_agent(folder) as agent:
        yield Bed(agent, disk)


# First: the agent has only just begun to make its templates.
async def test_while_a_template_is_made(bed: Bed) -> None:
    bed.mark()
    fill(bed.disk)
    await bed.until_said("a template is not kept on disk", "less than 1073741824 bytes are free")
    async with AgentClient(bed.agent.target) as client:
        pod = bed.pod(client)
        with pytest.raises(Exhausted, match=NO_ROOM):
            await pod.run()
        assert not (await client.list_sandboxes()).sandboxes
        make_room(bed.disk)
        assert (await pod.run()).start_mode == "template"
        await client.remove_sandbox(pod.sandbox_id)

    # And in the middle of its last step, the writing.
    bed.agent.kill(signal.SIGTERM)
    shutil.rmtree(bed.templates)
    bed.agent.start()
    await bed.until(lambda: any(bed.templates.glob("*.part")))
    bed.mark()
    fill(bed.disk)
    await bed.until_said("a template is not kept on disk", "No space left on device")
    assert not any(bed.templates.glob("*.part"))
    make_room(bed.disk)
    async with AgentClient(bed.agent.target) as client:
        assert (await pod_runs(bed, client)).start_mode == "template"
    # The next agent has all the room that it wants, and keeps what it makes.
    bed.agent.kill(signal.SIGTERM)
    bed.agent.start()
    await bed.until(lambda: len(list(bed.templates.glob("*/manifest.json"))) == 2)


async def test_while_an_image_is_pulled(bed: Bed) -> None:
    tools = f"{bed.agent.registry}/test/tools:1"
    work = bed.agent.state_dir / "images" / "work"
    async with AgentClient(bed.agent.target) as client:
        await pod_runs(bed, client)
        tried = f"failed to (pull|unpack|pack) image '{tools}'"
        with pytest.raises(Exhausted, match=f"(?s){tried}.*({NO_ROOM})"):
            async with aclosing(client.pull_image(tools)) as steps:
                async for step in steps:
                    if step.phase == "unpacking":
                        fill(bed.disk)
        assert not list(work.iterdir())
        # What was half done is gone; where even that has no room, it does not begin.
        fill(bed.disk)
        with pytest.raises(Exhausted, match=r"its layers take \d+ bytes, and the disk of"):
            async for _ in client.pull_image(tools):
                pass
        assert not await client.list_images(tools)
        make_room(bed.disk)
        told = [step async for step in client.pull_image(tools)]
        assert told[-1].image.repo_tags == [tools]
        await pod_runs(bed, client)


async def test_while_logs_and_disks_are_written(bed: Bed) -> None:
    async with AgentClient(bed.agent.target) as client:
        assert "DiskPressure" not in await pressures(client)
        talker, writer, late = (bed.pod(client) for _ in range(3))
        await talker.run()
        talks = await talker.start(COUNT)
        await writer.run()
        script = "dd if=/dev/zero of=/big bs=1M count=200 2>/dev/null; sync; sleep 100000"
        writes = await writer.start(f"sleep 1; {script}")
        # What its start has written must be on the disk, or writing it back would hold it.
        await exec_sync(client, talks, ["sync"], timeout_s=60)
        bed.mark()
        fill(bed.disk)
        await bed.until_said("a container's log cannot be written", "No space left on device")
        await bed.until_said("a VM waits, since the host's disk takes no more writes")
        assert "DiskPressure" in await pressures(client)
        # As the node is told, for the pods' events.
        assert "No space left" in (await talker.status()).containers[0].log_held
        assert "no room" in (await writer.status()).held
        with pytest.raises(Exhausted, match=NO_ROOM):
            await late.run()
        # The talker is not held: it can be asked, and its log read.
        result = await exec_sync(client, talks, ["echo", "alive"], timeout_s=60)
        assert result.stdout == b"alive\n"
        said = await talker.logs()

        make_room(bed.disk)
        assert "DiskPressure" not in await pressures(client)
        await late.run()
        await late.start("echo there is room")
        await late.exited()
        assert await late.logs() == "there is room\n"
        result = await exec_sync(
            client, writes, ["sh", "-c", "until [ -s /big ]; do sleep 1; done"]
        )
        assert result.code == 0
        await bed.until_said("set a guest's clock", writer.sandbox_id)
        least, most = await clock_bounds(client, writes)
        assert least >= -0.05
        assert most <= 0.05
        await bed.until_said("a VM goes on")
        assert (await writer.status()).held == ""
        assert (await talker.status()).containers[0].log_held == ""
        await client.stop_container(talks, 0)
        numbers = [int(line) for line in (await talker.logs()).splitlines()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > len(said.splitlines())
        for pod in (talker, writer, late):
            await client.remove_sandbox(pod.sandbox_id)


async def pressures(client: AgentClient) -> set[str]:
    return {c.type for c in (await client.host_info()).conditions if c.status}


async def pod_runs(bed: Bed, client: AgentClient) -> pb.SandboxStatus:
    """Run a pod from its start to its end; return how it was once it had started."""
    pod = bed.pod(client)
    status = await pod.run()
    await pod.start("echo it runs")
    await pod.exited()
    assert await pod.logs() == "it runs\n"
    await client.remove_sandbox(pod.sandbox_id)
    return status
