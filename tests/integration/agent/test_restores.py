"""Many VMs from one template: nothing of its past is common to them, and all know the time.

What the guest's own /etc/machine-id holds no container sees; it is the sandbox's id, which is
looked at where it is sent.
"""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.agent.conftest import Pod
from tests.support.guest_time import clock_bounds
from tests.support.real_agent import RealAgent
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.runtime.grpc_client import AgentClient

pytestmark = pytest.mark.vm

RESTORES = 50
AT_ONCE = 2
KEPT = 5
"""So many stay until the end; all at once would be too much for a small host."""
WITHIN_S = 0.05

# What could be the same in two clones: one line each, its name first.
OWN = r"""
echo boot_id $(cat /proc/sys/kernel/random/boot_id)
echo uuid $(cat /proc/sys/kernel/random/uuid)
echo urandom $(head -c 32 /dev/urandom | sha256sum)
echo random $(head -c 32 /dev/random | sha256sum)
echo stack $(grep stack /proc/self/maps)
echo heap $(grep heap /proc/self/maps)
echo temporary $(mktemp)
echo hostname $(hostname)
echo mac $(cat /sys/class/net/eth0/address)
echo address $(ip -4 -o addr show dev eth0 | awk '{print $4}')
echo address6 $(ip -6 -o addr show dev eth0 scope link | awk '{print $4}')
"""
SCRIPT = f"{OWN}exec sleep 100000\n"


def names(script: str) -> list[str]:
    return [line.split()[1] for line in script.splitlines() if line.startswith("echo ")]


async def restored(
    client: AgentClient, agent: RealAgent, **fields: Any
) -> tuple[Pod, pb.SandboxStatus]:
    """Start a pod from the template that the agent makes at its start."""
    while True:
        id_ = str(uuid.uuid4())
        pod = Pod(client, agent, id_)
        status = await pod.run(hostname=f"pod-{id_}", **fields)
        if status.start_mode == "template":
            return pod, status
        assert "is being made" in status.start_reason
        await client.remove_sandbox(pod.sandbox_id)


async def said(pod: Pod, script: str) -> dict[str, str]:
    """Return what the pod that runs the script says of itself, once it has said all."""
    request = pb.ReadLogsRequest(container_id=pod.container_id(), follow=True)
    text = b""
    async for data in pod.client.read_logs(request):
        text += data
        lines = text.decode().splitlines()
        if len(lines) >= len(names(script)) and text.endswith(b"\n"):
            return dict(line.split(" ", 1) for line in lines)
    raise AssertionError(text)


def assert_all_differ(words: Sequence[dict[str, str]]) -> None:
    for name in names(OWN):
        values = [each[name] for each in words]
        assert all(values), name
        assert len(set(values)) == len(words), (name, sorted(values))


def assert_right(clocks: Sequence[tuple[float, float]]) -> None:
    """Fail unless each clock is right, wherever between its bounds it is."""
    print(f"clocks: {min(clocks)} to {max(clocks)} s ahead")
    wrong = [(least, most) for least, most in clocks if least < -WITHIN_S or most > WITHIN_S]
    assert not wrong


@contextmanager
def busy_host() -> Iterator[None]:
    """Keep the host's processors busy."""
    loop = ["sh", "-c", "while :; do :; done"]
    processes = [subprocess.Popen(loop) for _ in range(4)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.timeout(900)
async def test_fifty_restores_share_nothing_and_know_the_time(
    agent: RealAgent, client: AgentClient
) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    kept: list[str] = []

    async def one() -> tuple[dict[str, str], tuple[float, float], str]:
        async with turn:
            pod, status = await restored(client, agent)
            id_ = await pod.start(SCRIPT)
            found = await said(pod, SCRIPT), await clock_bounds(client, id_), status.start_reason
            if len(kept) < KEPT:
                kept.append(id_)
            else:
                await client.remove_sandbox(pod.sandbox_id)
            return found

    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(one()) for _ in range(RESTORES)]
    words, clocks, reasons = zip(*(task.result() for task in started), strict=True)
    assert len(set(reasons)) == 1, set(reasons)
    assert reasons[0].startswith("template ")  # and its digest
    assert_all_differ(words)
    assert_right(clocks)

    # And they still know it after a while on a busy host.
    with busy_host():
        await asyncio.sleep(10)
        assert_right([await clock_bounds(client, id_) for id_ in kept])
