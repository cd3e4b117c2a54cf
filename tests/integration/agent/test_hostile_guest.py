"""Guests that attack the agent from inside: only their own pod suffers (guest/hostile)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from tests.integration.agent.conftest import Pod
from tests.support.real_agent import RealAgent, real_agent
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import DeadlineExceeded, NotFound, VkError
from vk_provider.runtime.exec_sync import exec_sync
from vk_provider.runtime.grpc_client import AgentClient

pytestmark = pytest.mark.vm

GROWTH_BYTES = 16 << 20
LASTS_S = 3
LONG_S = 30
TEXT = "sleep 100000"
COUNTER = 'i=0; while true; do i=$((i + 1)); echo "$i"; sleep 0.5; done'
NEIGHBOUR = str(uuid.uuid4())
MUTE = {way: str(uuid.uuid4()) for way in ("late-silent", "late-garbage", "late-frames")}
"""Pods that don't speak the protocol any more: it takes two minutes to be sure of that."""


@dataclass(frozen=True)
class Host:
    """An agent, and how it and an honest pod were before the first attack."""

    agent: RealAgent
    began: float
    before_bytes: int
    neighbour: pb.ContainerStatus

    @contextlib.asynccontextmanager
    async def unharmed(self, client: AgentClient) -> AsyncIterator[None]:
        """Check that the agent hardly grew since the first attack, and the neighbour goes on.

        What it grew by is not forgiven from one attack to the next.
        """
        pod = Pod(client, self.agent, NEIGHBOUR)
        yield
        done = await exec_sync(client, pod.container_id(), ["echo", "alive"], timeout_s=60)
        assert done.stdout == b"alive\n"
        now = await count(pod)
        async with asyncio.timeout(LONG_S):
            while True:
                if await count(pod) > now:
                    break
                await asyncio.sleep(0.2)
        (same,) = (await client.list_sandboxes(pod.sandbox_id)).sandboxes[0].containers
        assert same == self.neighbour
        process = psutil.Process(self.agent.pid)
        assert process.create_time() == self.began
        grown = peak_bytes(process) - self.before_bytes
        print(f"the agent has grown by {grown / 2**20:.1f} MiB at most since the first attack")
        assert grown < GROWTH_BYTES, f"the agent grew by {grown / 2**20:.1f} MiB"


async def count(pod: Pod) -> int:
    """Return how far the neighbour has counted in its log, where no number may be missing."""
    numbers = [int(line) for line in (await pod.logs()).splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    return len(numbers)


def peak_bytes(process: psutil.Process) -> int:
    """Return the largest resident size since the last reset; proc(5), clear_refs."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VK_GUEST_IMAGE", os.environ["VK_HOSTILE_GUEST_IMAGE"])
        with real_agent(tmp_path_factory.mktemp("agent")) as running:
            yield asyncio.run(_start_others(running))


async def _start_others(agent: RealAgent) -> Host:
    """Start an honest pod, and those that will be mute.

    The agent has loaded then all that it loads at its first use.
    """
    async with AgentClient(agent.target) as client:
        pod = Pod(client, agent, NEIGHBOUR)
        await pod.run()
        await pod.start(COUNTER)
        assert (await exec_sync(client, pod.container_id(), ["true"], timeout_s=60)).code == 0
        await count(pod)
        (neighbour,) = (await client.list_sandboxes(pod.sandbox_id)).sandboxes[0].containers
        process = psutil.Process(agent.pid)
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        host = Host(agent, process.create_time(), peak_bytes(process), neighbour)
        for way, uid in MUTE.items():
            mute = Pod(client, agent, uid)
            await mute.run(hostname=way)
            await mute.start(TEXT)
        return host


@pytest.fixture
def agent(host: Host) -> RealAgent:
    return host.agent


@pytest_asyncio.fixture
async def client(agent: RealAgent) -> AsyncIterator[AgentClient]:
    async with AgentClient(agent.target) as connected:
        yield connected


@pytest_asyncio.fixture
async def pod(agent: RealAgent, client: AgentClient) -> AsyncIterator[Pod]:
    made = Pod(client, agent, str(uuid.uuid4()))
    yield made
    with contextlib.suppress(NotFound):  # what did not start left nothing
        await client.remove_sandbox(made.sandbox_id)


async def failed(pod: Pod, within_s: float = 60) -> pb.SandboxStatus:
    """Return the sandbox's status once it and all its containers have ended."""
    async with asyncio.timeout(within_s):
        while True:
            status = (await pod.client.list_sandboxes(pod.sandbox_id)).sandboxes[0]
            ended = all(c.state == pb.CONTAINER_EXITED for c in status.containers)
            if status.state == pb.SANDBOX_NOT_READY and ended:
                return status
            await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("huge-list", "exhausted|larger than max"),
        ("huge-events", "its events in a message too large"),
        ("huge-stats", "its statistics in a message too large"),
        ("cookie", "a cookie that is none of ours"),
        ("backward", "sent output record 2 of 10 bytes after record 0"),
        ("long-record", "the output of [0-9a-f]{64} in a message too large"),
    ],
)
async def test_who_breaks_the_contract_is_ended_with_the_reason(
    host: Host, client: AgentClient, pod: Pod, way: str, why: str
) -> None:
    async with host.unharmed(client):
        try:
            await pod.run(hostname=way)
            await pod.start(TEXT)
        except VkError as exc:
            print(f"the caller was told: {exc}")  # the guest may have been ended first
        status = await failed(pod)
    check_reason(status, why)


def check_reason(status: pb.SandboxStatus, why: str) -> None:
    """The containers' message is what `kubectl describe pod` shows."""
    assert status.reason == "GuestFailed"
    assert re.search(why, status.message), status.message
    for container in status.containers:
        assert container.exit_code == 137
        assert container.message == f"GuestFailed: {status.message}"


@pytest.mark.parametrize(
    ("way", "lasts_s"),
    [
        ("flood-events", LASTS_S),
        ("flood-output", LONG_S),
        ("tiny-output", LASTS_S),
        ("lying-stats", LASTS_S),
        ("flood-exec", LASTS_S),
    ],
)
async def test_who_floods_slows_itself_alone(
    host: Host, client: AgentClient, pod: Pod, way: str, lasts_s: float
) -> None:
    async with host.unharmed(client):
        await pod.run(hostname=way)
        await pod.start(TEXT)
        with pytest.raises((DeadlineExceeded, TimeoutError)):
            async with asyncio.timeout(lasts_s):
                await exec_sync(client, pod.container_id(), ["sleep", "1000"], timeout_s=lasts_s)
        status = (await client.list_sandboxes(pod.sandbox_id)).sandboxes[0]
        assert status.state == pb.SANDBOX_READY
        async with asyncio.timeout(20):
            snapshot = await anext(aiter(client.watch_usage()))
    (mine,) = (used for used in snapshot.sandboxes if used.sandbox_id == pod.sandbox_id)
    assert mine.pod_counters.cpu_ns < 4000 * 10**9
    assert mine.pod_counters.memory_usage_bytes <= 2 * status.shape.memory_bytes
    assert len({v.name for v in mine.volumes}) == len(mine.volumes) <= 1


async def test_an_end_at_an_impossible_time_is_held_to_what_can_be(
    host: Host, client: AgentClient, pod: Pod
) -> None:
    async with host.unharmed(client):
        await pod.run(hostname="times")
        try:
            await pod.start(TEXT)
        except VkError as exc:
            print(f"the caller was told: {exc}")  # it is said to have ended before its start
        status = await pod.exited()
    assert status.created_at_ns <= status.started_at_ns <= status.finished_at_ns
    assert len(status.termination_message) <= 4096


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("silent", "the guest answered deadline_exceeded"),
        ("garbage", "Failed parsing HTTP/2|the guest answered unavailable"),
        ("frames", "Frame size 16777215 is larger than max|the guest answered unavailable"),
    ],
)
async def test_who_does_not_speak_the_protocol_does_not_start(
    host: Host, client: AgentClient, pod: Pod, way: str, why: str
) -> None:
    async with host.unharmed(client):
        with pytest.raises(VkError, match=why):
            await pod.run(hostname=way)
        assert not (await client.list_sandboxes(pod.sandbox_id)).sandboxes


async def test_who_lies_about_lengths_cannot_keep_its_pod_from_ending(
    host: Host, client: AgentClient, pod: Pod
) -> None:
    why = r"larger than max \(4294967295 vs"
    async with host.unharmed(client):
        await pod.run(hostname="late-lengths")
        await pod.start(TEXT)
        await asyncio.sleep(LASTS_S)
        with pytest.raises(VkError, match=why):
            await exec_sync(client, pod.container_id(), ["true"], timeout_s=LASTS_S)
        await client.stop_container(pod.container_id(), 1)
        status = await failed(pod)
    check_reason(status, rf"container 'main' was to be killed: .*{why}")


@pytest.mark.parametrize("way", MUTE)
async def test_who_stops_speaking_the_protocol_is_ended_with_the_reason(
    host: Host, client: AgentClient, way: str
) -> None:
    mute = Pod(client, host.agent, MUTE[way])
    async with host.unharmed(client):
        status = await failed(mute, within_s=180)
    check_reason(status, r"the guest agent has been silent for 120 s \(asked again, it was")
