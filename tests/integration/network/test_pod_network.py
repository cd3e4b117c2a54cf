"""Real plugins, namespaces and taps; the guest is played by this process, on the tap itself.

Runs in the network namespace that hack/test makes.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.attached import Attached, set_up
from vk_provider._pb.sandbox_pb2 import PodMetadata, PortMapping
from vk_provider.agent.network import NetworkSettings, PodNetwork
from vk_provider.common.errors import Exhausted, FailedPrecondition, Unavailable

pytestmark = pytest.mark.vm

POD = PodMetadata(namespace="default", name="web-0", uid="u")
BRIDGE = "vktest0"
VNET_HEADER = bytes(10)


def sandbox(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[PodNetwork]:
    settings = NetworkSettings(tmp_path / "net", cni_conf_dir=tmp_path / "conf", bridge=BRIDGE)
    network = PodNetwork(settings)
    await network.open()
    yield network
    for found in network.list_machine_ids():
        await network.tear_down(found)
    await network.remove_host_setup()
    assert not Path(f"/sys/class/net/{BRIDGE}").exists()
    assert "vk_provider" not in await rules()
    assert not list(Path("/run/netns").glob("vk-*"))


async def rules() -> str:
    process = await asyncio.create_subprocess_exec(
        "nft", "list", "ruleset", stdout=asyncio.subprocess.PIPE
    )
    return (await process.communicate())[0].decode()


def mac_bytes(attachment: Attached) -> bytes:
    return bytes.fromhex(attachment.interface.mac.replace(":", ""))


class Guest:
    """Speaks ARP and echoes UDP on a tap, as a guest with the attachment's addresses."""

    def __init__(self, attachment: Attached) -> None:
        self.fd = attachment.tap_fd
        self.mac = mac_bytes(attachment)
        self.ip = socket.inet_aton(attachment.ips[0])
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(self.fd, self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.fd)
        os.close(self.fd)

    def send(self, frame: bytes) -> None:
        os.write(self.fd, VNET_HEADER + frame)

    def ask(self, ip: str, *, mac: bytes = b"", sender: str = "") -> None:
        """Send an ARP request, as somebody else where a sender is given."""
        self.send(
            b"\xff" * 6
            + self.mac
            + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1)
            + (mac or self.mac)
            + (socket.inet_aton(sender) if sender else self.ip)
            + bytes(6)
            + socket.inet_aton(ip)
        )

    def datagram(self, target: bytes, sender: bytes, ip: str, port: int, data: bytes) -> None:
        """Send UDP over IPv4 to a MAC address, as the given sender."""
        udp = struct.pack("!HHHH", 1000, port, 8 + len(data), 0) + data
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
        header += sender + socket.inet_aton(ip)
        total = sum(struct.unpack("!10H", header))
        total = (total & 0xFFFF) + (total >> 16)
        header = header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
        self.send(target + self.mac + b"\x08\x00" + header + udp)

    async def next(self, kind: int) -> bytes:
        """Return the next frame of an Ethernet type; ARP requests are answered meanwhile."""
        async with asyncio.timeout(10):
            while True:
                frame = await self.frames.get()
                if frame[6:12] == self.mac:  # the bridge's hairpin: what was sent to all
                    continue
                if frame[:3] == b"\x01\x00\x5e":  # multicast: the bridge looks for routers
                    continue
                found = int.from_bytes(frame[12:14], "big")
                if found == 0x0806 and frame[20:22] == b"\x00\x01" and frame[38:42] == self.ip:
                    sender = frame[22:32]
                    reply = frame[6:12] + self.mac + frame[12:20] + b"\x00\x02"
                    self.send(reply + self.mac + self.ip + sender)
                elif found == kind:
                    return frame

    def _readable(self) -> None:
        try:
            while True:
                self.frames.put_nowait(os.read(self.fd, 65536)[len(VNET_HEADER) :])
        except BlockingIOError:
            return


async def test_not_ready_until_the_node_has_a_pod_cidr(network: PodNetwork) -> None:
    ready, words = network.ready()
    assert not ready
    assert "pod CIDR" in words
    with pytest.raises(Unavailable, match="pod CIDR"):
        await set_up(network, sandbox(1), POD, [])
    await network.set_pod_cidrs(["10.77.0.0/24"])
    assert network.ready() == (True, "built-in network on 10.77.0.0/24")


async def test_the_guest_stands_where_the_interface_stood(network: PodNetwork) -> None:
    await network.set_pod_cidrs(["10.77.0.0/24"])
    attachment = await set_up(network, sandbox(1), POD, [])
    interface = attachment.interface
    assert (interface.name, interface.mtu) == ("eth0", 1500)
    assert [address.cidr for address in interface.addresses] == [f"{attachment.ips[0]}/24"]
    assert [(route.destination, route.gateway) for route in interface.routes] == [
        ("0.0.0.0/0", "10.77.0.1")
    ]
    guest = Guest(attachment)
    guest.ask("10.77.0.1")
    reply = await guest.next(0x0806)
    assert (reply[20:22], reply[28:32]) == (b"\x00\x02", socket.inet_aton("10.77.0.1"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", (attachment.ips[0], 4000))
        assert (await guest.next(0x0800))[42:] == b"hello"
    guest.close()
    await network.tear_down(sandbox(1))
    assert network.list_machine_ids() == set()
    await network.tear_down(sandbox(1))


async def test_a_guest_that_sends_as_somebody_else_is_not_heard(network: PodNetwork) -> None:
    await network.set_pod_cidrs(["10.77.0.0/24"])
    guest = Guest(await set_up(network, sandbox(1), POD, []))
    guest.ask("10.77.0.1", sender="10.77.0.99")
    guest.ask("10.77.0.1", mac=b"\x02" * 6)
    guest.ask("10.77.0.1")
    reply = await guest.next(0x0806)
    assert reply[38:42] == guest.ip  # the only one that was answered
    assert guest.frames.empty()
    gateway = reply[22:28]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("10.77.0.1", 0))
        listener.setblocking(False)
        port = listener.getsockname()[1]
        guest.datagram(gateway, socket.inet_aton("10.77.0.99"), "10.77.0.1", port, b"false")
        guest.datagram(gateway, guest.ip, "10.77.0.1", port, b"true")
        async with asyncio.timeout(10):
            received = await asyncio.get_running_loop().sock_recv(listener, 99)
    assert received == b"true"
    guest.close()


async def test_host_ports_lead_to_the_pod_until_it_goes(network: PodNetwork) -> None:
    await network.set_pod_cidrs(["10.77.0.0/24"])
    mapping = PortMapping(host_port=5353, container_port=53, protocol="UDP")
    guest = Guest(await set_up(network, sandbox(1), POD, [mapping]))
    with pytest.raises(FailedPrecondition, match="nft"):
        await set_up(network, sandbox(2), POD, [mapping])
    await network.tear_down(sandbox(2))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"ping", ("127.0.0.1", 5353))
        packet = await guest.next(0x0800)
    assert packet[42:] == b"ping"
    assert packet[26:30] == socket.inet_aton("10.77.0.1")  # masqueraded: it must find back
    assert int.from_bytes(packet[36:38], "big") == 53
    guest.close()
    await network.tear_down(sandbox(1))
    assert "udp . 5353" not in await rules()


async def test_an_attachment_outlives_the_agent(tmp_path: Path, network: PodNetwork) -> None:
    await network.set_pod_cidrs(["10.77.0.0/24"])
    first = await set_up(network, sandbox(1), POD, [])
    with pytest.raises(FailedPrecondition, match="still runs"):
        await network.open_tap(sandbox(1))
    os.close(first.tap_fd)
    settings = NetworkSettings(tmp_path / "net", cni_conf_dir=tmp_path / "conf", bridge=BRIDGE)
    again = PodNetwork(settings)
    await again.open()
    assert again.ready()[0]
    assert again.list_machine_ids() == {sandbox(1)}
    second = await set_up(again, sandbox(1), POD, [])
    os.close(second.tap_fd)
    assert (second.interface, second.ips) == (first.interface, first.ips)
    await again.tear_down(sandbox(1))


async def test_a_host_that_was_restarted_gives_addresses_back(network: PodNetwork) -> None:
    await network.set_pod_cidrs(["10.77.0.0/30"])
    mapping = PortMapping(host_port=80, container_port=80)
    first = await set_up(network, sandbox(1), POD, [mapping])
    os.close(first.tap_fd)
    # All that the kernel held is gone; the records and the plugins' files are not.
    delete = await asyncio.create_subprocess_exec("ip", "netns", "delete", first.netns)
    assert await delete.wait() == 0
    await network.remove_host_setup()
    assert network.list_machine_ids() == {sandbox(1)}
    await network.tear_down(sandbox(1))
    assert network.list_machine_ids() == set()
    await network.set_pod_cidrs(["10.77.0.0/29"])
    await network.set_pod_cidrs(["10.77.0.0/30"])
    second = await set_up(network, sandbox(2), POD, [mapping])
    os.close(second.tap_fd)
    assert second.ips == first.ips


async def test_a_record_cut_short_keeps_neither_its_pod_nor_the_host(
    tmp_path: Path, network: PodNetwork
) -> None:
    await network.set_pod_cidrs(["10.77.0.0/29"])
    web, dns = (
        PortMapping(host_port=80, container_port=8080),
        PortMapping(host_port=5353, container_port=53, protocol="UDP"),
    )
    first = await set_up(network, sandbox(1), POD, [web])
    other = await set_up(network, sandbox(2), POD, [dns])
    for attached in (first, other):
        os.close(attached.tap_fd)
    record = tmp_path / "net" / "attachments" / f"{sandbox(1)}.json"
    record.write_bytes(record.read_bytes()[:100])
    assert "tcp . 80 " in await rules()

    settings = NetworkSettings(tmp_path / "net", cni_conf_dir=tmp_path / "conf", bridge=BRIDGE)
    again = PodNetwork(settings)
    await again.open()
    assert again.ready()[0], again.ready()[1]
    await again.tear_down(sandbox(1))
    assert again.list_machine_ids() == {sandbox(2)}
    assert not Path("/run/netns", first.netns).exists()
    leases = {path.name for path in (tmp_path / "net" / "ipam").rglob("10.77.0.*")}
    assert leases == {other.ips[0]}
    assert "tcp . 80 " not in await rules()
    assert "udp . 5353 " in await rules()
    await again.tear_down(sandbox(2))


async def test_twenty_at_once(network: PodNetwork) -> None:
    await network.set_pod_cidrs(["10.77.0.0/24"])
    found = await asyncio.gather(*(set_up(network, sandbox(n), POD, []) for n in range(20)))
    assert len({attachment.ips[0] for attachment in found}) == 20
    assert len({attachment.interface.mac for attachment in found}) == 20
    for attachment in found:
        os.close(attachment.tap_fd)
    await asyncio.gather(*(network.tear_down(sandbox(n)) for n in range(20)))


async def test_addresses_run_out_with_a_reason_and_come_back(network: PodNetwork) -> None:
    await network.set_pod_cidrs(["10.77.0.0/30"])
    os.close((await set_up(network, sandbox(1), POD, [])).tap_fd)
    with pytest.raises(Exhausted, match="no IP addresses available"):
        await set_up(network, sandbox(2), POD, [])
    await network.tear_down(sandbox(2))
    await network.tear_down(sandbox(1))
    os.close((await set_up(network, sandbox(2), POD, [])).tap_fd)


async def test_a_cancelled_set_up_is_undone_by_tear_down(network: PodNetwork) -> None:
    await network.set_pod_cidrs(["10.77.0.0/30"])
    for turns in range(0, 60, 6):
        task = asyncio.create_task(set_up(network, sandbox(1), POD, []), name="set_up")
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(outcome, Attached):
            os.close(outcome.tap_fd)
        await network.tear_down(sandbox(1))
    os.close((await set_up(network, sandbox(1), POD, [])).tap_fd)


async def test_the_hosts_own_configuration_is_used_where_there_is_one(
    tmp_path: Path, network: PodNetwork
) -> None:
    directory = tmp_path / "conf"
    directory.mkdir()
    config = {
        "cniVersion": "0.4.0",
        "name": "point-to-point",
        "plugins": [
            {
                "type": "ptp",
                "mtu": 1350,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(tmp_path / "ipam"),
                    "subnet": "10.78.0.0/24",
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    (directory / "10-ptp.conflist").write_text(json.dumps(config))
    assert "point-to-point" in network.ready()[1]
    attachment = await set_up(network, sandbox(1), POD, [])
    os.close(attachment.tap_fd)
    assert attachment.interface.mtu == 1350
    # ptp routes the whole subnet over the gateway, which is reached directly.
    routes = [(route.destination, route.gateway) for route in attachment.interface.routes]
    assert routes[0] == ("10.78.0.1/32", "")
    assert ("0.0.0.0/0", "10.78.0.1") in routes
    await network.tear_down(sandbox(1))
    (directory / "00-broken.conf").write_text("{")
    assert network.ready()[0] is False
