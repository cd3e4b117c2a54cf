from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.api_stub import ApiStub, api_stub, write_kubeconfig
from tests.support.fake_clock import FakeClock
from vk_provider.kube.client import KubeClient


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def api() -> AsyncIterator[ApiStub]:
    async with api_stub() as stub:
        yield stub


@pytest.fixture
async def client(api: ApiStub, tmp_path: Path, clock: FakeClock) -> AsyncIterator[KubeClient]:
    path = write_kubeconfig(tmp_path / "kubeconfig", api.url, token="first")
    client = await KubeClient.from_kubeconfig(path, user_agent="test/1", clock=clock)
    yield client
    await client.close()
