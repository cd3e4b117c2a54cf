"""The agent is killed while it makes, saves or restores templates; no VM gets a broken one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent.conftest import Pod
from tests.support.real_agent import RealAgent, real_agent
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.hypervisor import instance_name
from vk_provider.agent.hypervisor.templates.shelf import Shelf
from vk_provider.common.errors import VkError
from vk_provider.runtime.grpc_client import AgentClient

pytestmark = pytest.mark.vm

SEED = 5
BUSYBOX = Path("/bin/busybox")
USUAL_SHAPES = 2
PATIENCE_S = 120.0
TURN_S = 0.005


class Bed:
    """One agent that dies and comes back, and what it keeps."""

    def __init__(self, agent: RealAgent) -> None:
        self.agent = agent
        self.random = random.Random(SEED)
        self.templates = agent.state_dir / "hypervisor" / "templates"

    async def killed(self, after_s: float) -> None:
        """Let the agent be for a while, kill it, and look at what it leaves."""
        await asyncio.sleep(after_s)
        self.agent.kill(signal.SIGKILL)
        self.check_shelf()

    def check_shelf(self) -> None:
        """Whatever has a template's name is whole."""
        shelf = Shelf(self.templates)
        for entry in shelf.entries():
            manifest = json.loads((self.templates / entry.digest / "manifest.json").read_text())
            shelf.load(entry.digest, manifest["tsc_khz"]).close()

    def forget_templates(self) -> None:
        shutil.rmtree(self.templates)

    async def until_making(self, pattern: str) -> None:
        """Wait until the maker has made that in the folder of the templates."""
        await self.until(lambda: any(self.templates.glob(pattern)))

    async def until_kept(self, templates: int = 1) -> None:
        """Wait until so many are complete; that of the smallest shape, the pods', is the first."""
        await self.until(lambda: len(self.kept()) >= templates)

    async def until(self, holds: object) -> None:
        assert callable(holds)
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, self.agent.tail()
            await asyncio.sleep(TURN_S)

    def kept(self) -> list[Path]:
        return [path for path in self.templates.iterdir() if len(path.name) == 32]

    async def check_pods(self) -> None:
        """After a new start: what was there works or is gone, and a new pod works."""
        before = qemus()
        self.agent.start()
        async with AgentClient(self.agent.target) as client:
            found = (await client.list_sandboxes()).sandboxes
            # Whoever was killed with the agent's work is gone before it serves.
            assert len(before & qemus()) == len(found)
            for sandbox in found:
                assert sandbox.state == pb.SANDBOX_READY
                pod = Pod(client, self.agent, sandbox.pod.uid)
                await check(pod)
                await client.remove_sandbox(pod.sandbox_id)
            await self.until_kept()
            pod = Pod(client, self.agent, str(uuid.uuid4()))
            assert (await pod.run()).start_mode == "template"
            await check(pod)
            await client.remove_sandbox(pod.sandbox_id)
            assert not any(self.templates.glob("*.gone"))


async def check(pod: Pod) -> None:
    """Have the guest read its disk, fork and count: what a torn memory would not do."""
    await pod.start("sha256sum /bin/busybox; seq 1 1000 | sha256sum; cat /proc/uptime >/dev/null")
    assert (await pod.exited()).exit_code == 0
    digest = hashlib.sha256(BUSYBOX.read_bytes()).hexdigest()
    numbers = hashlib.sha256("".join(f"{n}\n" for n in range(1, 1001)).encode()).hexdigest()
    assert await pod.logs() == f"{digest}  /bin/busybox\n{numbers}  -\n"


def qemus() -> set[int]:
    """Return the QEMUs of this process namespace."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().startswith("qemu-system"):
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    with real_agent(tmp_path) as running:
        made = Bed(running)
        yield made
        state_dir = running.state_dir
    assert not qemus()
    names = {path.name for path in made.templates.iterdir()}
    assert not [name for name in names if len(name) != 32]
    group = instance_name(state_dir / "hypervisor")
    assert not list(Path("/sys/fs/cgroup").glob(f"**/vk-provider/{group}"))
    assert not list((state_dir / "sandboxes").iterdir())
    assert not list(Path("/run/netns").glob("vk-*"))


@pytest.mark.timeout(900)
async def test_twenty_kills_of_the_agent_break_no_template(bed: Bed) -> None:
    begun = time.monotonic()
    await bed.until_kept()
    # From the boot to the last file: kills are spread over that time.
    took = time.monotonic() - begun

    for _ in range(7):
        bed.agent.kill(signal.SIGKILL)
        bed.forget_templates()
        bed.agent.start()
        await bed.killed(bed.random.uniform(0, took))
        await bed.check_pods()

    for _ in range(4):
        bed.agent.kill(signal.SIGKILL)
        bed.forget_templates()
        bed.agent.start()
        await bed.until_making("*.part")
        await bed.killed(bed.random.uniform(0, 0.4))
        await bed.check_pods()

    await bed.until_kept(USUAL_SHAPES)
    after_s = [0.0, *(bed.random.uniform(0, 0.3) for _ in range(8))]
    modes = [await one_restore(bed, delay_s) for delay_s in after_s]
    print(f"a template took {took:.1f} s; restores that the kill did not cut short: {modes}")
    assert "" in modes  # the first kill, at the latest, came in the middle of both

    # The same of one that is torn, as by a power cut: dropped, reported, and not missed.
    bed.agent.kill(signal.SIGKILL)
    for folder in bed.kept():
        with (folder / "memory").open("r+b") as file:
            file.truncate(1 << 20)
    bed.agent.start()
    async with AgentClient(bed.agent.target) as client:
        pod = Pod(client, bed.agent, str(uuid.uuid4()))
        status = await pod.run()
        assert (status.start_mode, "checksums are wrong" in status.start_reason) == (
            "cold",
            True,
        )
        await check(pod)
        await client.remove_sandbox(pod.sandbox_id)
    assert "dropped a template" in bed.agent.output.read_text()


async def one_restore(bed: Bed, delay_s: float) -> str:
    """Kill the agent so long after the first of two VMs has begun; return which were through."""
    async with AgentClient(bed.agent.target) as client:
        pods = [Pod(client, bed.agent, str(uuid.uuid4())) for _ in range(2)]
        before = qemus()
        runs = [asyncio.create_task(pod.run()) for pod in pods]
        await bed.until(lambda: qemus() - before)
        await bed.killed(delay_s)
        ended = await asyncio.gather(*runs, return_exceptions=True)
    assert all(isinstance(end, pb.SandboxStatus | VkError) for end in ended), ended
    await bed.check_pods()
    return ", ".join(end.start_mode for end in ended if isinstance(end, pb.SandboxStatus))
