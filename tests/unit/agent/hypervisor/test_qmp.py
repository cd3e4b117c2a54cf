"""QMP against a played QEMU."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vk_provider.agent.hypervisor.qmp import LineSplitter, QmpClient, QmpError
from vk_provider.common.errors import Internal, Unavailable


@given(st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b)), st.data())
def test_lines_come_out_whole_however_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    splitter = LineSplitter()
    found: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[start:end])
    assert found == lines


def test_an_endless_line_is_refused() -> None:
    splitter = LineSplitter(limit=10)
    splitter.feed(b"12345")
    with pytest.raises(Internal, match="more than 10 bytes"):
        splitter.feed(b"6789012")


class PlayedQemu:
    """The monitor's other end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self.fds: list[int] = []

    async def receive(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._buffer += await asyncio.get_running_loop().sock_recv(self._connection, 65536)
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    async def receive_fds(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._connection, ready.set)
        await ready.wait()
        loop.remove_reader(self._connection)
        data, fds, _, _ = socket.recv_fds(self._connection, 65536, 4)
        self.fds += array.array("i", fds)
        self._buffer += data
        return await self.receive()

    async def send(self, **message: Any) -> None:
        data = json.dumps(message).encode() + b"\r\n"
        await asyncio.get_running_loop().sock_sendall(self._connection, data)

    async def answer(self, value: Any = None) -> dict[str, Any]:
        message = await self.receive()
        await self.send(id=message["id"], **{"return": value if value is not None else {}})
        return message

    def hang_up(self) -> None:
        self._connection.close()


@asynccontextmanager
async def connected(
    tmp_path: Path, events: list[tuple[str, dict[str, Any]]] | None = None
) -> AsyncIterator[tuple[QmpClient, PlayedQemu]]:
    path = tmp_path / "qmp.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        noted = events if events is not None else []
        async with asyncio.TaskGroup() as tasks:
            connecting = tasks.create_task(
                QmpClient.connect(path, lambda name, data: noted.append((name, data)))
            )
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            qemu = PlayedQemu(connection)
            await qemu.send(QMP={"version": {}, "capabilities": []})
            assert (await qemu.answer())["execute"] == "qmp_capabilities"
        client = connecting.result()
        try:
            yield client, qemu
        finally:
            client.close()
            qemu.hang_up()


async def test_answers_find_their_callers_in_any_order(tmp_path: Path) -> None:
    async with connected(tmp_path) as (client, qemu), asyncio.TaskGroup() as tasks:
        one = tasks.create_task(client.execute("one"))
        two = tasks.create_task(client.execute("two", a=1))
        first, second = await qemu.receive(), await qemu.receive()
        assert second["arguments"] == {"a": 1}
        await qemu.send(id=second["id"], **{"return": 2})
        await qemu.send(id=first["id"], **{"return": 1})
        assert (await one, await two) == (1, 2)


async def test_a_refusal_is_an_error_with_its_kind(tmp_path: Path) -> None:
    async with connected(tmp_path) as (client, qemu), asyncio.TaskGroup() as tasks:

        async def refuse() -> None:
            message = await qemu.receive()
            await qemu.send(id=message["id"], error={"class": "DeviceNotFound", "desc": "no x"})

        tasks.create_task(refuse())
        with pytest.raises(QmpError, match="refused device_del: no x") as caught:
            await client.execute("device_del", id="x")
        assert caught.value.error_class == "DeviceNotFound"


async def test_events_are_told_between_answers(tmp_path: Path) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    async with connected(tmp_path, events) as (client, qemu), asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(client.execute("query-status"))
        message = await qemu.receive()
        await qemu.send(event="STOP", timestamp={})
        await qemu.send(event="SHUTDOWN", data={"reason": "guest-shutdown"}, timestamp={})
        await qemu.send(id=message["id"], **{"return": {}})
        await asked
    assert events == [("STOP", {}), ("SHUTDOWN", {"reason": "guest-shutdown"})]


async def test_a_descriptor_goes_with_its_command(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    async with connected(tmp_path) as (client, qemu), asyncio.TaskGroup() as tasks:
        tasks.create_task(client.execute_with("add-fd", {"fdset-id": 7}, [fd]))
        message = await qemu.receive_fds()
        assert message["arguments"] == {"fdset-id": 7}
        assert os.read(qemu.fds[0], 100) == b"content"
        await qemu.send(id=message["id"], **{"return": {}})
    os.close(fd)
    os.close(qemu.fds[0])


async def test_descriptors_never_overtake_each_other(tmp_path: Path) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    async with connected(tmp_path) as (client, qemu), asyncio.TaskGroup() as tasks:
        tasks.create_task(client.execute_with("add-fd", {"fdset-id": 1}, [fd]))
        tasks.create_task(client.execute_with("add-fd", {"fdset-id": 2}, [fd]))
        first = await qemu.receive_fds()
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(qemu.fds) == 1
        await qemu.send(id=first["id"], **{"return": {}})
        second = await qemu.receive_fds()
        assert (first["arguments"]["fdset-id"], second["arguments"]["fdset-id"]) == (1, 2)
        await qemu.send(id=second["id"], **{"return": {}})
    for held in [fd, *qemu.fds]:
        os.close(held)


async def test_qemus_end_ends_every_wait(tmp_path: Path) -> None:
    async with connected(tmp_path) as (client, qemu), asyncio.TaskGroup() as tasks:

        async def leave() -> None:
            await qemu.receive()
            qemu.hang_up()

        tasks.create_task(leave())
        with pytest.raises(Unavailable, match="closed its monitor"):
            await client.execute("stop")
        with pytest.raises(Unavailable):
            await client.execute("cont")


async def test_what_is_no_qmp_ends_the_connection(tmp_path: Path) -> None:
    async with connected(tmp_path) as (client, qemu), asyncio.TaskGroup() as tasks:

        async def babble() -> None:
            await qemu.receive()
            await asyncio.get_running_loop().sock_sendall(qemu._connection, b"[1]\n")

        tasks.create_task(babble())
        with pytest.raises(Internal, match="no QMP"):
            await client.execute("stop")


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await QmpClient.connect(tmp_path / "none.sock", lambda _name, _data: None)
