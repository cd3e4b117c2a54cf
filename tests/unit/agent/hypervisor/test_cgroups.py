"""Control groups, in folders that stand for hierarchies."""

from pathlib import Path

import pytest

from vk_provider.agent.hypervisor.cgroups import CgroupManager, Hierarchies, parse_mounts
from vk_provider.common.errors import FailedPrecondition

HYBRID = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
"""


def test_controllers_are_found_on_a_hybrid_host() -> None:
    found = parse_mounts(HYBRID)
    assert found.unified is None
    assert [str(r) for r in found.roots()] == [
        "/sys/fs/cgroup/cpu,cpuacct",
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/pids",
    ]


def test_controllers_are_found_on_a_unified_host() -> None:
    found = parse_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n")
    assert found.roots() == [Path("/sys/fs/cgroup")]


def test_a_host_without_any_is_told_what_to_do() -> None:
    with pytest.raises(FailedPrecondition, match="mount cgroup2"):
        parse_mounts("proc /proc proc rw 0 0\n")


@pytest.fixture
def v1(tmp_path: Path) -> Hierarchies:
    names = ("cpu", "cpuacct", "memory", "pids")
    for name in names:
        (tmp_path / name).mkdir()
    return Hierarchies(None, {name: tmp_path / name for name in names})


def test_a_group_is_bounded_in_every_hierarchy(v1: Hierarchies, tmp_path: Path) -> None:
    group = CgroupManager(v1, "vk-provider/x").create("a" * 32, 100 << 20)
    group.limit_cpu(750)
    folder = Path("vk-provider/x") / ("a" * 32)
    assert (tmp_path / "memory" / folder / "memory.limit_in_bytes").read_text() == "104857600"
    assert (tmp_path / "cpu" / folder / "cpu.cfs_quota_us").read_text() == "75000"
    assert (tmp_path / "pids" / folder / "pids.max").exists()
    assert len(group.procs_files()) == 4
    shares = [tmp_path / "cpu" / part / "cpu.shares" for part in (folder.parent, "vk-provider")]
    assert all(int(file.read_text()) >= 2048 for file in shares)


def test_a_unified_group_gets_its_controllers(tmp_path: Path) -> None:
    manager = CgroupManager(Hierarchies(tmp_path, {}), "vk-provider/x")
    group = manager.create("b" * 32, 1 << 20)
    group.limit_cpu(2000)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (tmp_path / "vk-provider/x/cgroup.subtree_control").exists()
    folder = tmp_path / "vk-provider/x" / ("b" * 32)
    assert (folder / "memory.max").read_text() == "1048576"
    assert (folder / "cpu.max").read_text() == "200000 100000"
    (folder / "cpu.stat").write_text("usage_usec 1500\nuser_usec 1\n")
    assert group.cpu_ns() == 1_500_000


def test_only_groups_with_our_mark_are_listed(v1: Hierarchies, tmp_path: Path) -> None:
    manager = CgroupManager(v1, "vk-provider")
    assert manager.names() == set()
    manager.create("c" * 32, 1)
    manager.create("vk-probe", 1)
    (tmp_path / "memory/vk-provider/somebody").mkdir()
    assert manager.names() == {"c" * 32, "vk-probe"}


def test_removal_may_be_repeated_and_says_what_is_in_use(v1: Hierarchies, tmp_path: Path) -> None:
    manager = CgroupManager(v1, "vk-provider/x")
    for root in v1.roots():
        (root / "vk-provider/x" / ("d" * 32)).mkdir(parents=True)
    group = manager.group("d" * 32)
    busy = tmp_path / "cpu/vk-provider/x" / ("d" * 32) / "child"
    busy.mkdir()
    assert group.remove() is False
    busy.rmdir()
    assert group.remove() is True
    assert group.remove() is True
    manager.remove_parents()
    assert not (tmp_path / "cpu/vk-provider").exists()
    assert group.cpu_ns() == 0
