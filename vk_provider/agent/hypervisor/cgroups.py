"""A control group for each QEMU: what it may use at most, and what it did use.

Works on v1 hierarchies (also beside an empty v2 one) and on v2. The group's name is the
sandbox's id, which is how a VM without a record is found again.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from vk_provider.common.errors import FailedPrecondition

_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids")
_PERIOD_US = 100_000
_MAX_TASKS = 256
_OURS = re.compile(r"[0-9a-f]{32}|vk-[a-z0-9-]{1,40}")


@dataclass(frozen=True)
class Hierarchies:
    """Where each controller is. On v2 all of them are in one place, `unified`."""

    unified: Path | None
    v1: dict[str, Path]

    def roots(self) -> list[Path]:
        return [self.unified] if self.unified else list(dict.fromkeys(self.v1.values()))


def parse_mounts(text: str) -> Hierarchies:
    """Find the controllers in the text of /proc/self/mounts (fstab(5) escapes and all).

    v1 wins where it has the controllers: a controller is in one of the two only.
    Raises FailedPrecondition when cpu or memory is nowhere.
    """
    v1: dict[str, Path] = {}
    unified: Path | None = None
    for line in text.splitlines():
        _, target, kind, mount_options, *_ = line.split()
        path = Path(target.replace("\\040", " "))
        if kind == "cgroup":
            for name in mount_options.split(","):
                if name in _CONTROLLERS:
                    v1.setdefault(name, path)
        elif kind == "cgroup2" and unified is None:
            unified = path
    if "cpu" in v1 and "memory" in v1:
        return Hierarchies(None, v1)
    if unified is None:
        raise FailedPrecondition(
            "this host has no cgroup hierarchy with cpu and memory, so microVMs cannot be "
            "bounded; mount cgroup2 at /sys/fs/cgroup"
        )
    return Hierarchies(unified, {})


class CgroupManager:
    """All groups of one agent, below one parent. Each method is a few short writes."""

    def __init__(self, hierarchies: Hierarchies, parent: str) -> None:
        self._hierarchies = hierarchies
        self._parent = parent

    @classmethod
    def of_host(cls, parent: str) -> CgroupManager:
        """Raises FailedPrecondition when the host has no cgroups."""
        return cls(parse_mounts(Path("/proc/self/mounts").read_text()), parent)

    def create(self, name: str, memory_bytes: int) -> Cgroup:
        """Make a group (again) and bound its memory and its number of tasks."""
        group = self.group(name)
        if self._hierarchies.unified:
            _enable(self._hierarchies.unified, self._parent)
        self._weigh_parents()
        for path in group.paths():
            path.mkdir(parents=True, exist_ok=True)
        group.limit(memory_bytes)
        return group

    def group(self, name: str) -> Cgroup:
        return Cgroup(self._hierarchies, Path(self._parent) / name)

    def _weigh_parents(self) -> None:
        """Have all VMs together count as two busy processes for each CPU of the host.

        A group counts as one process among those outside of it, however many it holds.
        """
        cpus = os.cpu_count() or 1
        for part in (Path(self._parent), *Path(self._parent).parents):
            if part == Path():
                continue
            if self._hierarchies.unified:
                weight = self._hierarchies.unified / part / "cpu.weight"
                value = min(10_000, 200 * cpus)
            else:
                weight = self._hierarchies.v1["cpu"] / part / "cpu.shares"
                value = min(262_144, 2048 * cpus)
            weight.parent.mkdir(parents=True, exist_ok=True)
            weight.write_text(str(value))

    def remove_parents(self) -> None:
        """Remove the parents of all groups, those that are empty."""
        for root in self._hierarchies.roots():
            for part in (Path(self._parent), *Path(self._parent).parents):
                if part != Path() and not _rmdir(root / part):
                    break

    def names(self) -> set[str]:
        """Return the names of all groups with our mark."""
        found: set[str] = set()
        for root in self._hierarchies.roots():
            try:
                entries = list((root / self._parent).iterdir())
            except FileNotFoundError:
                continue
            found |= {e.name for e in entries if _OURS.fullmatch(e.name) and e.is_dir()}
        return found


@dataclass(frozen=True)
class Cgroup:
    """One VM's group in every hierarchy."""

    hierarchies: Hierarchies
    relative: Path

    def paths(self) -> list[Path]:
        return [root / self.relative for root in self.hierarchies.roots()]

    def procs_files(self) -> list[Path]:
        """Return the files to which a process writes its pid to join."""
        return [path / "cgroup.procs" for path in self.paths()]

    def limit(self, memory_bytes: int) -> None:
        """Bound memory and tasks. What a host's kernel lacks of it is left unbounded."""
        if self.hierarchies.unified:
            self._write(self.hierarchies.unified, "memory.max", memory_bytes)
            self._write(self.hierarchies.unified, "pids.max", _MAX_TASKS)
            return
        self._write(self.hierarchies.v1["memory"], "memory.limit_in_bytes", memory_bytes)
        if "pids" in self.hierarchies.v1:
            self._write(self.hierarchies.v1["pids"], "pids.max", _MAX_TASKS)

    def limit_cpu(self, milli: int) -> None:
        """Bound the CPU time in thousandths of a CPU, in periods of 100 ms."""
        quota = max(1000, milli * _PERIOD_US // 1000)
        if self.hierarchies.unified:
            self._write(self.hierarchies.unified, "cpu.max", f"{quota} {_PERIOD_US}")
            return
        self._write(self.hierarchies.v1["cpu"], "cpu.cfs_period_us", _PERIOD_US)
        self._write(self.hierarchies.v1["cpu"], "cpu.cfs_quota_us", quota)

    def yield_cpu(self) -> None:
        """Have everybody else go first where the CPU is short."""
        if self.hierarchies.unified:
            self._write(self.hierarchies.unified, "cpu.weight", 25)
        else:
            self._write(self.hierarchies.v1["cpu"], "cpu.shares", 256)

    def claim_cpu(self) -> None:
        """Take back `yield_cpu`."""
        if self.hierarchies.unified:
            self._write(self.hierarchies.unified, "cpu.weight", 100)
        else:
            self._write(self.hierarchies.v1["cpu"], "cpu.shares", 1024)

    def cpu_ns(self) -> int:
        """Return the CPU time used so far; 0 when the group is gone."""
        try:
            if self.hierarchies.unified:
                text = (self.hierarchies.unified / self.relative / "cpu.stat").read_text()
                values = dict(line.split() for line in text.splitlines())
                return int(values.get("usage_usec", 0)) * 1000
            root = self.hierarchies.v1.get("cpuacct")
            return int((root / self.relative / "cpuacct.usage").read_text()) if root else 0
        except OSError:
            return 0

    def oom_kills(self) -> int:
        """Return how often the kernel killed in the group for want of memory; 0 when it is gone."""
        if self.hierarchies.unified:
            path = self.hierarchies.unified / self.relative / "memory.events"
        else:
            path = self.hierarchies.v1["memory"] / self.relative / "memory.oom_control"
        try:
            values = dict(line.split() for line in path.read_text().splitlines())
            return int(values.get("oom_kill", 0))
        except OSError:
            return 0

    def pids(self) -> set[int]:
        """Return the processes in the group."""
        found: set[int] = set()
        for path in self.procs_files():
            try:
                found |= {int(word) for word in path.read_text().split()}
            except OSError:
                continue
        return found

    def remove(self) -> bool:
        """Remove the empty group; may be repeated. False when a process is still in it."""
        removed = [_rmdir(path) for path in self.paths()]  # every one, also after a failure
        return all(removed)

    def _write(self, root: Path, name: str, value: int | str) -> None:
        (root / self.relative / name).write_text(str(value))


def _rmdir(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError as exc:
        if exc.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise
    return True


def _enable(root: Path, parent: str) -> None:
    """Give the controllers on, from the root of a v2 hierarchy to the parent's children."""
    wanted = " ".join(f"+{name}" for name in ("cpu", "memory", "pids"))
    directory = root
    for part in ("", *Path(parent).parts):
        directory = directory / part
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.subtree_control").write_text(wanted)
