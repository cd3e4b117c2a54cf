"""A real agent on a full disk: what runs goes on, what is new is refused until there is room."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent.conftest import Pod
from tests.support.real_agent import RealAgent, real_agent
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Exhausted
from vk_provider.runtime.exec_sync import exec_sync
from vk_provider.runtime.grpc_client import AgentClient

pytestmark = pytest.mark.vm

MIB = 1024 * 1024


@pytest.fixture
def small(tmp_path: Path) -> Iterator[RealAgent]:
    """An agent with 64 MiB for all that it keeps."""
    state = tmp_path / "state"
    state.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64m", "tmpfs"]
    subprocess.run(["mount", *options, str(state)], check=True)
    try:
        with real_agent(tmp_path) as running:
            yield running
    finally:
        subprocess.run(["umount", str(state)], check=True)


def fill(path: Path) -> None:
    """Leave no room at all."""
    with path.open("wb", buffering=0) as ballast:
        for size in (MIB, 4096):
            try:
                while ballast.write(b"x" * size) == size:
                    pass
            except OSError:
                continue


async def test_what_runs_goes_on_and_what_is_new_waits_for_room(small: RealAgent) -> None:
    async with AgentClient(small.target) as client:
        first, second = (Pod(client, small, str(uuid.uuid4())) for _ in range(2))
        await first.run()
        id_ = await first.start("while :; do date +%s; sleep 1; done")
        ballast = small.state_dir / "ballast"
        fill(ballast)

        with pytest.raises(Exhausted, match=r"no space left|make room"):
            await second.run()
        tools = f"{small.registry}/test/tools:1"
        with pytest.raises(Exhausted):
            async for _ in client.pull_image(tools):
                pass
        said = await first.logs()
        result = await exec_sync(client, id_, ["sh", "-c", "sleep 2; echo alive"], timeout_s=60)
        assert result.stdout == b"alive\n"
        assert len(await first.logs()) > len(said)

        ballast.unlink()
        await second.run()
        await second.start("echo there is room")
        await second.exited()
        assert await second.logs() == "there is room\n"
        (status,) = (await client.list_sandboxes(first.sandbox_id)).sandboxes
        assert status.state == pb.SANDBOX_READY
        for pod in (first, second):
            await client.remove_sandbox(pod.sandbox_id)
