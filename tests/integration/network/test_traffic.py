"""Who reaches whom on the built-in network, and as whom they are seen.

The guest is played by the namespace itself, its redirection to the tap taken away: the kernel
then uses the interface that the guest would have.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.support.attached import set_up
from vk_provider._pb.sandbox_pb2 import PodMetadata, PortMapping
from vk_provider.agent.network import NetworkSettings, PodNetwork

pytestmark = pytest.mark.vm

SERVICE = "10.96.0.1"
HOST = "192.0.2.1"
# Tells each client the address it is seen with.
SERVER = """
import socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
while True:
    client, peer = listener.accept()
    client.sendall(peer[0].encode())
    client.close()
"""
CLIENT = """
import socket, sys
print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).recv(99).decode())
"""
# What kube-proxy's nftables mode does for a Service with one endpoint.
PROXY = """
table ip proxy {
  chain prerouting {
    type nat hook prerouting priority dstnat
    ip daddr %(service)s tcp dport 80 dnat to %(pod)s:80
  }
  chain postrouting {
    type nat hook postrouting priority srcnat
    ct status dnat ip saddr . ip daddr { %(pod)s . %(pod)s } masquerade
  }
}
"""


async def run(*command: str, stdin: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(stdin.encode())
    assert process.returncode == 0, command
    return output.decode().strip()


def inside(namespace: str | None, *command: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *command] if namespace else [*command]


@asynccontextmanager
async def server(namespace: str | None, port: int) -> AsyncIterator[None]:
    command = inside(namespace, "python3", "-c", SERVER, str(port))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        await process.wait()


async def seen_as(namespace: str | None, address: str, port: int) -> str:
    return await run(*inside(namespace, "python3", "-c", CLIENT, address, str(port)))


async def test_pods_keep_their_address_wherever_it_is_known(tmp_path: Path) -> None:
    network = PodNetwork(
        NetworkSettings(tmp_path / "net", cni_conf_dir=tmp_path / "conf", bridge="vktest1")
    )
    await network.open()
    await network.set_pod_cidrs(["10.79.0.0/24"])
    ids = ["a" * 32, "b" * 32]
    mapping = PortMapping(host_port=8088, container_port=80)
    try:
        client = await set_up(network, ids[0], PodMetadata(name="client"), [])
        backend = await set_up(network, ids[1], PodMetadata(name="backend"), [mapping])
        for attachment in (client, backend):
            os.close(attachment.tap_fd)
            await run("tc", "-n", attachment.netns, "qdisc", "del", "dev", "eth0", "ingress")
        for command in (
            "ip netns add outside",
            "ip link add out0 type veth peer name out1 netns outside",
            f"ip addr add {HOST}/24 dev out0",
            "ip link set out0 up",
            "ip -n outside addr add 192.0.2.2/24 dev out1",
            "ip -n outside link set out1 up",
        ):
            await run(*command.split())
        pod, gateway = backend.ips[0], "10.79.0.1"
        await run("nft", "-f", "-", stdin=PROXY % {"service": SERVICE, "pod": pod})
        async with AsyncExitStack() as servers:
            for namespace, port in ((backend.netns, 80), ("outside", 80), (None, 81)):
                await servers.enter_async_context(server(namespace, port))
            mine = client.ips[0]
            assert await seen_as(client.netns, pod, 80) == mine
            assert await seen_as(client.netns, SERVICE, 80) == mine
            assert await seen_as(client.netns, HOST, 81) == mine
            assert await seen_as(client.netns, gateway, 81) == mine
            # Strangers see the host; so does a pod that meets itself.
            assert await seen_as(client.netns, "192.0.2.2", 80) == HOST
            assert await seen_as(backend.netns, SERVICE, 80) == gateway
            assert await seen_as(backend.netns, HOST, 8088) == gateway
            # From outside to the pod: directly from the host, else by the host port.
            assert await seen_as(None, pod, 80) == gateway
            assert await seen_as(None, "127.0.0.1", 8088) == gateway
            assert await seen_as("outside", HOST, 8088) == "192.0.2.2"
    finally:
        for sandbox_id in ids:
            await network.tear_down(sandbox_id)
        await network.remove_host_setup()
        await run("nft", "-f", "-", stdin="table ip proxy {}\ndelete table ip proxy\n")
        await run("ip", "netns", "delete", "outside")
