"""The status writer with the real client, and a server that is busy, broken or slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.api_stub import Answer, ApiStub, Stream, api_stub, status, write_kubeconfig
from tests.support.fake_clock import FakeClock
from tests.support.pod_world import pod
from vk_provider.kube.client import KubeClient
from vk_provider.pods.status.writer import StatusWriter

_PATH = "/api/v1/namespaces/default/pods/web/status"


@asynccontextmanager
async def _writing(folder: Path) -> AsyncIterator[tuple[ApiStub, StatusWriter, FakeClock]]:
    clock = FakeClock()
    async with api_stub() as api:
        config = write_kubeconfig(folder / "kubeconfig", api.url)
        client = await KubeClient.from_kubeconfig(config, user_agent="test/1", clock=clock)
        writer = StatusWriter(client, pod(), clock)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(writer.run(), name="writer")
            yield api, writer, clock
            task.cancel()
        await client.close()


async def _pass_time(clock: FakeClock) -> None:
    while True:
        await clock.wait_for_sleeper()
        await clock.advance(5)


async def test_a_busy_and_a_broken_server_have_the_newest_status_in_the_end(
    tmp_path: Path,
) -> None:
    busy = Answer(status(429, "TooManyRequests").body, 429, {"Retry-After": "1"})
    answers = [busy, status(500, "InternalError"), Answer(b"bad gateway", 502)]
    async with _writing(tmp_path) as (api, writer, clock):
        api.on("PATCH", _PATH, *answers, status(504, "Timeout"), pod())
        writer.put({"phase": "Running", "message": "old"})
        await api.count("PATCH", _PATH, 1)
        writer.put({"phase": "Running", "message": "new"})
        async with asyncio.TaskGroup() as group:
            time = group.create_task(_pass_time(clock), name="time")
            await writer.flush()
            time.cancel()
    assert [s.body["status"]["message"] for s in api.seen] == ["old", "old", "new", "new", "new"]


async def test_while_a_server_thinks_newer_statuses_are_joined(tmp_path: Path) -> None:
    think = asyncio.Event()
    async with _writing(tmp_path) as (api, writer, _):
        api.on("PATCH", _PATH, Stream([pod()], think), pod())
        writer.put({"phase": "Pending"})
        await api.count("PATCH", _PATH, 1)
        for number in range(5):
            writer.put({"phase": "Running", "message": str(number)})
        think.set()
        await writer.flush()
    first, second = api.seen
    assert first.body["status"] == {"phase": "Pending"}
    assert second.body["status"] == {"phase": "Running", "message": "4"}
