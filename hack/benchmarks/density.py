"""Many idle pods together: what each costs above a bare idle guest, and what is left after."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import psutil

from hack.benchmarks.bed import Bed, say, test_bed
from hack.benchmarks.floor import BareVms
from hack.devcluster.processes import running
from hack.devcluster.remains import remains

Figures = dict[str, float | int | str | None]

_WINDOW_S = 30


# A VM that is kept ready has one of each; the names of the others are a pod's alone.
_OF_EACH_VM = (
    "processes",
    "network namespaces",
    "mounts",
    "cgroups",
    "attachments",
    "sandboxes on disk",
    "sandboxes' sockets",
)


@dataclass(frozen=True)
class _Host:
    """What the host holds of ours, by kind, to be the same before and after."""

    spares: int
    names: dict[str, list[str]]

    @staticmethod
    def now(bed: Bed) -> _Host:
        """Wait until the agent makes no more VMs ready, then look."""
        return _Host(bed.wait_spares(), remains(bed.settings))

    def more_than(self, before: _Host) -> dict[str, int]:
        """Return what there is more of, but for what VMs that are kept ready have.

        Each kind for itself: less of one makes good for no other.
        """
        more = {}
        for what, names in self.names.items():
            count = len(names) - len(before.names[what])
            if what in _OF_EACH_VM:
                count -= self.spares - before.spares
            more[what] = max(0, count)
        return more


def density(pods: int) -> Figures:
    """Measure `pods` idle pods that are Ready together, usage sampling on."""
    with test_bed() as bed:
        before = _Host.now(bed)
        bare = asyncio.run(_bare_cpu_pct(bed))
        idle = _cpu_pct(bed)
        names = [f"idle-{i}" for i in range(pods)]
        say(f"Creating {pods} pods")
        began = time.monotonic()
        for name in names:
            bed.create(name)
        bed.wait_all_ready(names, timeout_s=600)
        ready = time.monotonic() - began
        say(f"All Ready after {ready:.1f} s; letting them idle")
        bed.wait_spares()
        busy = _cpu_pct(bed)
        each = {part: (busy[part] - idle[part]) / pods for part in busy}
        guests = [psutil.Process(bed.qemu_of(name)) for name in names]
        private = [_private_mib(p) for p in guests]
        translation = [_translation_mib(p) for p in guests]
        bed.delete(names, timeout_s=600)
        leaked = _Host.now(bed).more_than(before)
        return {
            "n": pods,
            "vms_kept_ready": before.spares,
            "all_ready_s": ready,
            "cpu_pct_per_pod": sum(each.values()),
            **{f"cpu_pct_per_pod_{part}": pct for part, pct in each.items()},
            "bare_guest_cpu_pct": bare,
            "above_bare_pct": sum(each.values()) - bare,
            "private_mib_per_pod": sum(private) / len(private),
            "translation_cache_mib_per_pod": sum(translation) / len(translation),
            "leaked": sum(leaked.values()),
            "leaked_what": ", ".join(f"{n} {what}" for what, n in leaked.items() if n) or None,
        }


async def _bare_cpu_pct(bed: Bed) -> float:
    say("A bare idle guest, for comparison")
    async with BareVms(bed, template=True) as vms:
        vm = await vms.start()
        await asyncio.sleep(5)
        start = vm.usage().cpu_ns
        await asyncio.sleep(_WINDOW_S)
        used = vm.usage().cpu_ns - start
        await vm.kill()
    return used / 1e9 / _WINDOW_S * 100


def _qemus() -> list[psutil.Process]:
    every = psutil.process_iter(["name"])
    return [process for process in every if process.info["name"].startswith("qemu-system")]


def _cpu_pct(bed: Bed) -> dict[str, float]:
    """Return what all QEMUs, the agent and the node use, in percent of one processor."""
    before = _cpu_seconds(bed)
    time.sleep(_WINDOW_S)
    after = _cpu_seconds(bed)
    return {part: (after[part] - before[part]) / _WINDOW_S * 100 for part in after}


def _cpu_seconds(bed: Bed) -> dict[str, float]:
    parts = {"qemu": _qemus()}
    for name in ("agent", "node"):
        record = running(bed.settings, name)
        assert record is not None
        parts[name] = [psutil.Process(record.pid)]
    return {
        part: sum(sum(process.cpu_times()[:2]) for process in processes)
        for part, processes in parts.items()
    }


def _private_mib(process: psutil.Process) -> float:
    with open(f"/proc/{process.pid}/smaps_rollup") as lines:  # noqa: PTH123
        kib = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    return sum(kib) / 1024


def _translation_mib(process: psutil.Process) -> float:
    """Return what is resident of the emulator's translation cache, its one rwx mapping."""
    kib = 0
    counts = False
    with open(f"/proc/{process.pid}/smaps") as lines:  # noqa: PTH123
        for line in lines:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                counts = words[1].startswith("rwx")
            elif counts and words[0] == "Rss:":
                kib += int(words[1])
    return kib / 1024
