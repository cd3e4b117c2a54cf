"""VMs on the network: what leaves one guest arrives in another, and on the host, unharmed."""

from __future__ import annotations

import asyncio
import hashlib
import uuid

import pytest

from tests.integration.agent.conftest import Pod
from vk_provider._pb import sandbox_pb2 as pb

pytestmark = pytest.mark.vm

# A file of 8 MiB for whoever asks; large segments cross the taps with their checksums left open.
SERVE = """
mkdir /www && cd /www
dd if=/dev/urandom of=data bs=1M count=8 2>/dev/null
httpd -p 80
sha256sum data | cut -d' ' -f1
exec tail -f /dev/null
"""


async def first_line(pod: Pod) -> str:
    request = pb.ReadLogsRequest(container_id=pod.container_id(), follow=True)
    text = b""
    async with asyncio.timeout(60):
        async for data in pod.client.read_logs(request):
            text += data
            if b"\n" in text:
                break
    return text.decode().splitlines()[0]


async def fetch(address: str, port: int) -> str:
    """Return the digest of /data as this host gets it."""
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(address, port)
        writer.write(b"GET /data HTTP/1.0\r\n\r\n")
        answer = await reader.read(-1)
        writer.close()
        await writer.wait_closed()
    return hashlib.sha256(answer.partition(b"\r\n\r\n")[2]).hexdigest()


async def test_pods_and_host_reach_each_other(pod: Pod) -> None:
    mapping = pb.PortMapping(host_port=18080, container_port=80, protocol="TCP")
    server = await pod.run(port_mappings=[mapping])
    await pod.start(SERVE)
    digest = await first_line(pod)
    address = server.ips[0]
    assert await fetch(address, 80) == digest
    assert await fetch("127.0.0.1", 18080) == digest

    client = Pod(pod.client, pod.agent, str(uuid.uuid4()))
    own = (await client.run()).ips[0]
    host = await asyncio.start_server(greet, "0.0.0.0", 0)
    port = host.sockets[0].getsockname()[1]
    gateway = ".".join(own.split(".")[:3]) + ".1"
    await client.start(
        f"wget -q -O - http://{address}/data | sha256sum | cut -d' ' -f1\n"
        f"nc {gateway} {port} </dev/null\n"
        "cat /sys/class/net/eth0/mtu\n"
        "ip route | grep -c default\n"
    )
    await client.exited()
    assert (await client.logs()).splitlines() == [digest, own, "1500", "1"]
    host.close()
    await host.wait_closed()


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Tell a client the address that it is seen with."""
    del reader
    writer.write(writer.get_extra_info("peername")[0].encode() + b"\n")
    await writer.drain()
    writer.close()
