"""A port that somebody else has is told, and nothing of ours goes on listening."""

from __future__ import annotations

import socket
import ssl

import pytest

from tests.support.fake_clock import FakeClock
from tests.support.kubelet_api_bed import Pods, Reviewer
from vk_provider.common.errors import Unavailable
from vk_provider.kubelet_api.server import KubeletServer
from vk_provider.kubelet_api.sources import KubeletApiSettings
from vk_provider.runtime.fake import FakeRuntime


@pytest.mark.parametrize("taken", ["API", "health"])
async def test_a_port_in_use_ends_the_server_in_words(taken: str) -> None:
    clock = FakeClock()
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        busy, free = other.getsockname()[1], probe.getsockname()[1]
        probe.close()
        api, health = (busy, free) if taken == "API" else (free, busy)
        async with FakeRuntime(clock) as runtime:
            server = KubeletServer(
                KubeletApiSettings("n1", listen_address="127.0.0.1", port=api, healthz_port=health),
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
                pods=Pods(),
                runtime=runtime,
                reviewer=Reviewer(),
                clock=clock,
            )
            with pytest.raises(Unavailable, match=f"127.0.0.1:{busy}.*choose another port"):
                await server.run()
            assert not server.listening.is_set()
        with socket.create_server(("127.0.0.1", free)):
            pass
