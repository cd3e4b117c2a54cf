"""Pods in VMs that were kept ready: nothing is common to them, and nothing of before is left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integration.agent.test_restores import (
    OWN,
    assert_all_differ,
    assert_right,
    names,
    restored,
    said,
)
from tests.support.guest_time import clock_bounds
from tests.support.real_agent import real_agent
from vk_provider.runtime.grpc_client import AgentClient

pytestmark = pytest.mark.vm

SPARES = 4
KEPT_READY_S = 5.0
OTHER_DISK = 1 << 30
"""Not that of the VMs that are kept ready, so a pod with it starts in one of its own."""

# What a container that ran before in the same VM could have left to this one.
LEFT = r"""
set -- /proc/[0-9]*
echo processes $*
echo files $(ls -A / /tmp /run /dev /dev/shm /dev/mqueue 2>&1)
echo mounts $(awk '{print $2, $3}' /proc/self/mounts)
echo links $(ls /sys/class/net)
echo group $(cat /proc/self/cgroup)
echo groups $(find /sys/fs/cgroup -type d)
echo ipc $(wc -l /proc/sysvipc/* 2>&1)
echo environment $(env | grep -v ^HOSTNAME= | sort)
"""
SCRIPT = f"{LEFT}{OWN}exec sleep 100000\n"


@pytest.mark.timeout(300)
async def test_vms_kept_ready_share_nothing_know_the_time_and_are_as_new(tmp_path: Path) -> None:
    words: list[dict[str, str]] = []
    clocks: list[tuple[float, float]] = []
    with real_agent(tmp_path, spare_vms=SPARES) as agent:
        async with AgentClient(agent.target) as client:
            # No container has run before in the VM of this one.
            pod, status = await restored(client, agent, ephemeral_storage_limit_bytes=OTHER_DISK)
            assert status.start_reason.startswith("template ")
            await pod.start(SCRIPT)
            new = await said(pod, SCRIPT)
            for _ in range(2):
                await until_ready(client)
                await asyncio.sleep(KEPT_READY_S)
                for _ in range(SPARES):
                    pod, status = await restored(client, agent)
                    assert status.start_reason.startswith("one of the VMs kept ready; template ")
                    id_ = await pod.start(SCRIPT)
                    words.append(await said(pod, SCRIPT))
                    clocks.append(await clock_bounds(client, id_))
    assert_all_differ([new, *words])
    assert_right(clocks)
    for name in names(LEFT):
        assert {each[name] for each in words} == {new[name]}, name


async def until_ready(client: AgentClient) -> None:
    """Wait until all VMs are ready that are to be kept so."""
    async for usage in client.watch_usage():
        if usage.spare_vms == SPARES:
            return
