"""Real microVMs: how they start, what they may do, how they are found again and how they end."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from vk_provider._pb import guest_pb2 as pb
from vk_provider.agent.hypervisor import (
    GuestImage,
    Hypervisor,
    HypervisorSettings,
    VmRecord,
    VmSpec,
)
from vk_provider.agent.hypervisor.process import start_ticks
from vk_provider.common.errors import Exhausted, NotFound

pytestmark = pytest.mark.vm

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def state_dir() -> Iterator[Path]:
    """A state directory of the module's own, so that one template serves all its tests."""
    with tempfile.TemporaryDirectory(prefix="vkhv") as name:
        yield Path(name)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    name = tempfile.mkdtemp(prefix="vkr", dir="/run")
    yield Path(name)
    shutil.rmtree(name)


def image() -> GuestImage:
    return GuestImage.load(Path(os.environ["VK_GUEST_IMAGE"]))


def settings(state_dir: Path, run_dir: Path) -> HypervisorSettings:
    return HypervisorSettings(state_dir=state_dir, run_dir=run_dir / "own")


@pytest_asyncio.fixture
async def hypervisor(state_dir: Path, run_dir: Path) -> AsyncIterator[Hypervisor]:
    opened = Hypervisor(settings(state_dir, run_dir), image())
    await opened.open()
    yield opened
    left = opened.list_cgroups()
    for name in left:
        await opened.remove_cgroup(name)
    await opened.close()
    assert left == set()


def order(run_dir: Path, *, template: bool = False) -> VmSpec:
    number = next(_numbers)
    directory = run_dir / f"s{number}"
    directory.mkdir()
    return VmSpec(
        sandbox_id=f"{number:032x}",
        vcpus=1,
        memory_mib=256,
        cpu_milli=1000,
        uid=2_100_000 + number,
        netns=None,
        tap_fd=None,
        run_dir=directory,
        allow_template=template,
    )


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_qemu_is_nobody_confined_and_leaves_nothing(
    hypervisor: Hypervisor, run_dir: Path
) -> None:
    records: list[VmRecord] = []
    spec = order(run_dir)
    vm = await hypervisor.start(spec, records.append)
    try:
        assert records == [vm.record]
        assert (vm.record.start_mode, hypervisor.list_cgroups()) == ("cold", {spec.sandbox_id})
        seen = status(vm.record.pid)
        assert seen["Uid"].split() == [str(spec.uid)] * 4
        assert seen["Groups"] == ""
        assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "1")
        assert int(seen["CapBnd"], 16) == int(seen["CapEff"], 16) == 0
        assert os.getsid(vm.record.pid) != os.getsid(0)
        limits = Path(f"/proc/{vm.record.pid}/limits").read_text()
        assert re.search(r"^Max core file size +1 +1 ", limits, re.MULTILINE)
        usage = vm.usage()
        assert usage.cpu_ns > 0
        assert usage.private_memory_bytes > 10 << 20
    finally:
        await vm.kill()
    await vm.kill()
    with pytest.raises(NotFound):
        start_ticks(vm.record.pid)
    assert vm.usage().cpu_ns >= usage.cpu_ns


async def test_disks_come_and_go_while_the_guest_runs(
    hypervisor: Hypervisor, run_dir: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.touch(mode=0o600)
    os.truncate(disk, 64 << 20)
    mkfs = await asyncio.create_subprocess_exec("mkfs.ext4", "-q", str(disk))
    assert await mkfs.wait() == 0
    vm = await hypervisor.start(order(run_dir), lambda _: None)
    try:
        await vm.attach_disk(0, disk, read_only=False)
        await vm.attach_disk(0, disk, read_only=False)
        mount = pb.MountDiskRequest(lun=0, scratch=True)
        await vm.guest.control.MountDisk(mount, timeout=20)
        await vm.attach_disk(5, disk, read_only=True)
        await vm.detach_disk(5)
        await vm.detach_disk(5)
        await vm.attach_disk(5, disk, read_only=True)
        with pytest.raises(NotFound):
            await vm.attach_disk(6, tmp_path / "none", read_only=True)
    finally:
        await vm.kill()


async def test_a_restarted_agent_finds_its_vms(
    hypervisor: Hypervisor, state_dir: Path, run_dir: Path
) -> None:
    vm = await hypervisor.start(order(run_dir), lambda _: None)
    record = VmRecord.from_json(vm.record.to_json())
    await vm.close()
    later = Hypervisor(settings(state_dir, run_dir), image())
    await later.open()
    adopted = await later.adopt(record)
    assert adopted is not None
    assert (await adopted.guest.hello(10)).protocol_version == 1
    async with asyncio.TaskGroup() as tasks:
        end = tasks.create_task(adopted.wait())
        await adopted.guest.control.Shutdown(pb.ShutdownRequest(), timeout=10)
    assert end.result().message == ""
    await adopted.kill()
    assert await later.adopt(record) is None
    await later.close()


async def test_a_vm_that_is_killed_says_so(hypervisor: Hypervisor, run_dir: Path) -> None:
    vm = await hypervisor.start(order(run_dir), lambda _: None)
    os.kill(vm.record.pid, 9)
    end = await vm.wait()
    assert (end.code, "SIGKILL" in end.message) == (-9, True)
    await vm.kill()


async def test_a_cancelled_start_leaves_nothing(hypervisor: Hypervisor, run_dir: Path) -> None:
    records: list[VmRecord] = []
    async with asyncio.TaskGroup() as tasks:
        started = asyncio.Event()

        def on_record(record: VmRecord) -> None:
            records.append(record)
            started.set()

        task = tasks.create_task(hypervisor.start(order(run_dir), on_record))
        await started.wait()
        task.cancel()
    assert hypervisor.list_cgroups() == set()
    with pytest.raises(NotFound):
        start_ticks(records[0].pid)


async def test_a_vm_without_a_record_is_removed_by_its_group(
    hypervisor: Hypervisor, run_dir: Path
) -> None:
    spec = order(run_dir)
    vm = await hypervisor.start(spec, lambda _: None)
    await vm.close()
    assert hypervisor.list_cgroups() == {spec.sandbox_id}
    await hypervisor.remove_cgroup(spec.sandbox_id)
    assert hypervisor.list_cgroups() == set()


async def test_templates_are_made_used_kept_and_distrusted(
    hypervisor: Hypervisor, state_dir: Path, run_dir: Path, tmp_path: Path
) -> None:
    assert await hypervisor.prepare(1, 256)
    first, second = [
        await hypervisor.start(order(run_dir, template=True), lambda _: None) for _ in range(2)
    ]
    assert [vm.record.start_mode for vm in (first, second)] == ["template", "template"]
    assert first.usage().private_memory_bytes < 64 << 20
    await no_record_costs_no_template(hypervisor, run_dir)
    await another_descriptor_costs_no_start(hypervisor, run_dir)
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    await first.attach_disk(1, tmp_path / "disk", read_only=True)
    await first.kill()
    await second.kill()
    await hypervisor.close()

    # The next agent finds it on disk, complete.
    later = Hypervisor(settings(state_dir, run_dir), image())
    await later.open()
    vm = await later.start(order(run_dir, template=True), lambda _: None)
    assert vm.record.start_mode == "template"
    await vm.kill()
    await later.close()

    # One changed byte: noticed, dropped, and the VM starts all the same.
    (memory,) = (state_dir / "templates").glob("*/memory")
    with memory.open("r+b") as file:
        file.seek(40 << 20)
        byte = file.read(1)
        file.seek(40 << 20)
        file.write(bytes([byte[0] ^ 1]))
    distrusting = Hypervisor(settings(state_dir, run_dir), image())
    await distrusting.open()
    vm = await distrusting.start(order(run_dir, template=True), lambda _: None)
    assert vm.record.start_mode == "cold"
    assert "checksums are wrong" in vm.record.start_reason
    await vm.kill()
    await distrusting.close()


async def no_record_costs_no_template(hypervisor: Hypervisor, run_dir: Path) -> None:
    """A full disk, by which no VM can be written down, says nothing against the template."""

    def refuse(_: VmRecord) -> None:
        raise Exhausted("make room")

    before = zombies()
    for _ in range(4):
        with pytest.raises(Exhausted, match="make room"):
            await hypervisor.start(order(run_dir, template=True), refuse)
        assert len(hypervisor.list_cgroups()) == 2  # of those that run
    assert zombies() == before
    vm = await hypervisor.start(order(run_dir, template=True), lambda _: None)
    assert vm.record.start_mode == "template"
    await vm.kill()


def zombies() -> set[int]:
    """Return the ended children that nobody has waited for."""
    children = psutil.Process().children()
    return {child.pid for child in children if child.status() == psutil.STATUS_ZOMBIE}


async def another_descriptor_costs_no_start(hypervisor: Hypervisor, run_dir: Path) -> None:
    """A QEMU that holds its memory elsewhere is ended, and another one does without discards."""
    assert hypervisor._library is not None
    (template,) = hypervisor._library._loaded.values()
    number, template.memory_number = template.memory_number, 90
    assert number is not None
    vm = await hypervisor.start(order(run_dir, template=True), lambda _: None)
    assert vm.record.start_mode == "template"
    (again,) = hypervisor._library._loaded.values()
    assert again.memory_number is None
    assert [name for name, _, _ in vm.phases].count("vm_spawn") == 1
    await vm.kill()
    template.memory_number = number
