"""An agent's core on fakes: machines whose guest is a `FakeGuest`, images, network."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from tests.support.fake_guest import FakeGuest
from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.context import Context
from vk_provider.agent.events import EventHub
from vk_provider.agent.guest import GuestConnection
from vk_provider.agent.images import Collected, FsUsage, ImageConfig, StoredImage
from vk_provider.agent.network import Attachment, Tap
from vk_provider.agent.ports import Machine, MachineOrder
from vk_provider.agent.settings import AgentSettings
from vk_provider.agent.shapes import default_table
from vk_provider.agent.store import Store
from vk_provider.common.clock import SystemClock
from vk_provider.common.errors import Unavailable

SANDBOX = "0" * 31 + "1"
CONTAINER = "c" * 64
POD = pb.PodMetadata(namespace="default", name="web", uid="uid-1")


@dataclass
class FakeExit:
    code: int | None
    message: str


@dataclass
class FakeUsage:
    cpu_ns: int = 5_000_000_000
    private_memory_bytes: int = 1024


class FakeVm:
    def __init__(self) -> None:
        self.held = False
        self.hold_changed = asyncio.Event()
        self.yields = False
        self.used = FakeUsage()
        self.disks: dict[int, Path] = {}
        self.phases: list[tuple[str, int, int]] = []
        self.ended: asyncio.Future[FakeExit] = asyncio.get_running_loop().create_future()

    @property
    def gone(self) -> bool:
        return self.ended.done()

    async def until_held(self, held: bool) -> None:
        while self.held is not held:
            await self.hold_changed.wait()
            self.hold_changed.clear()

    def yield_cpu(self) -> None:
        self.yields = True

    def claim_cpu(self) -> None:
        self.yields = False

    async def attach_disk(self, lun: int, file: Path, *, read_only: bool) -> None:
        self.disks[lun] = file

    async def wait(self) -> FakeExit:
        return await asyncio.shield(self.ended)

    async def kill(self) -> None:
        if not self.ended.done():
            self.ended.set_result(FakeExit(0, "killed"))

    def usage(self) -> FakeUsage:
        return self.used

    async def close(self) -> None:
        pass


class FakeMachines:
    """Its VMs outlive the contexts that started them, as real ones do."""

    def __init__(self, guest: FakeGuest) -> None:
        self.guest = guest
        self.vms: dict[str, FakeVm] = {}
        self.error: Exception | None = None
        self.leftovers: set[str] = set()
        self.prepared: list[tuple[int, int]] = []
        self.prunings = 0
        self.connections: list[GuestConnection] = []

    async def start(self, order: MachineOrder, on_record: Callable[[str], None]) -> Machine:
        if self.error is not None:
            raise self.error
        on_record(order.sandbox_id)
        vm = self.vms[order.sandbox_id] = FakeVm()
        return self._machine(vm)

    async def prepare(self, vcpus: int, memory_mib: int) -> bool:
        self.prepared.append((vcpus, memory_mib))
        return True

    async def prune_templates(self) -> None:
        self.prunings += 1

    async def adopt(self, record: str) -> Machine | None:
        vm = self.vms.get(record)
        return None if vm is None or vm.ended.done() else self._machine(vm)

    async def destroy(self, record: str) -> None:
        if (vm := self.vms.get(record)) is not None:
            await vm.kill()

    def list_leftovers(self) -> set[str]:
        return self.leftovers

    async def remove_leftover(self, sandbox_id: str) -> None:
        self.leftovers.discard(sandbox_id)

    def _machine(self, vm: FakeVm) -> Machine:
        connection = GuestConnection(self.guest.address, self.guest.address)
        self.connections.append(connection)
        return Machine(vm, connection, "cold", "cold: a test", "6.1", "fake")


@dataclass
class FakeNetwork:
    attached: set[str] = field(default_factory=set)
    error: Exception | None = None

    async def open_tap(self, sandbox_id: str) -> Tap:
        self.attached.add(sandbox_id)
        return Tap(f"vk-{sandbox_id}", os.open("/dev/null", os.O_RDWR))

    async def attach(self, sandbox_id: str, pod: pb.PodMetadata, ports: Any) -> Attachment:
        return Attachment(guest_pb2.NetworkInterface(name="eth0"), ["10.0.0.2"])

    async def tear_down(self, sandbox_id: str) -> None:
        if self.error is not None:
            raise self.error
        self.attached.discard(sandbox_id)

    def list_machine_ids(self) -> set[str]:
        return set(self.attached)

    def ready(self) -> tuple[bool, str]:
        return True, "fake"


IMAGE_REF = "sha256:" + "a" * 64


class FakeImages:
    def __init__(self, disk: Path) -> None:
        self.collected: list[Set[str]] = []
        self.collect_error: Exception | None = None
        self.images = [
            StoredImage(
                image_ref=IMAGE_REF,
                disk=disk,
                config=ImageConfig(cmd=["sh"], env=["FROM=image"], user="app"),
                passwd="root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
                group="app:x:1000:\nextra:x:2000:app\n",
                repo_tags=["test/busybox:1"],
                repo_digests=["test/busybox@sha256:" + "b" * 64],
                size_bytes=1,
                pulled_at_ns=1,
                last_used_at_ns=1,
            )
        ]

    def resolve(self, image: str) -> StoredImage | None:
        for stored in self.images:
            if image in (stored.image_ref, *stored.repo_tags, *stored.repo_digests):
                return stored
        return None

    def list(self) -> list[StoredImage]:
        return self.images

    async def remove(self, image: str) -> None:
        self.images = [i for i in self.images if i.image_ref != image]

    async def collect(self, *, in_use: Set[str]) -> Collected:
        if self.collect_error is not None:
            raise self.collect_error
        self.collected.append(in_use)
        return Collected([], 0, 0)

    def mark_used(self, image_ref: str) -> None:
        pass

    def usage(self) -> FsUsage:
        return FsUsage(100, 10, 90, 100, 90)


@dataclass
class World:
    """One host's fakes; `agent()` runs an agent on them, as often as a test likes."""

    directory: Path
    guest: FakeGuest
    machines: FakeMachines
    network: FakeNetwork
    images: FakeImages

    @property
    def settings(self) -> AgentSettings:
        base = self.directory
        base_settings = AgentSettings(base / "state", base / "run", base / "logs")
        return replace(base_settings, scratch_bytes=1, spare_vms=1)

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Context]:
        store = Store.open(self.settings.database)
        clock = SystemClock()
        try:
            async with asyncio.TaskGroup() as tasks:
                context = Context(
                    self.settings,
                    store,
                    self.machines,
                    cast("Any", self.images),
                    cast("Any", self.network),
                    EventHub(clock),
                    clock,
                    default_table(),
                    tasks,
                )
                try:
                    yield context
                finally:
                    await context.cancel_tasks()
                    for connection in self.machines.connections:
                        await connection.close()
                    self.machines.connections.clear()
        finally:
            store.close()


@asynccontextmanager
async def make_world(directory: Path) -> AsyncIterator[World]:
    async with FakeGuest(directory / "guest.sock") as guest:
        machines = FakeMachines(guest)
        yield World(directory, guest, machines, FakeNetwork(), FakeImages(directory / "disk.erofs"))


def run_request(**fields: Any) -> pb.RunSandboxRequest:
    return pb.RunSandboxRequest(sandbox_id=SANDBOX, pod=POD, hostname="web", **fields)


def create_request(container_id: str = CONTAINER, **fields: Any) -> pb.CreateContainerRequest:
    config = pb.ContainerConfig(container_id=container_id, name="main", image="test/busybox:1")
    config.MergeFrom(pb.ContainerConfig(**fields))
    return pb.CreateContainerRequest(sandbox_id=SANDBOX, config=config)


def unavailable() -> Unavailable:
    return Unavailable("a test says no")
