"""bound → Ready of single pods, with a bare VM's start as the floor, and of a burst of pods."""

from __future__ import annotations

import asyncio
import time

from hack.benchmarks.bed import Bed, say, test_bed
from hack.benchmarks.figures import quantile
from hack.benchmarks.floor import BareVms

Figures = dict[str, float | int | str | None]


def start(runs: int, cold_runs: int, pause_s: float) -> Figures:
    """Measure `runs` pods, each `pause_s` after the last was gone, then others with less help.

    The floor is a bare restore, which a pod that takes a VM that is kept ready has behind it:
    some are restored at their start, too, for that is what the floor is the floor of.
    """
    with test_bed() as bed:
        _let_templates_settle(bed)
        spares = bed.wait_spares()
        say(f"Starting {runs} pods, one after the other")
        warm, steps = _one_by_one(bed, runs, "warm", pause_s)
        say("Starting bare VMs for the floor")
        floor = asyncio.run(_floor(bed, min(runs, 20), template=True))
        modes = _modes(bed, "warm")
        figures: Figures = {
            "n": runs,
            "pause_s": pause_s,
            "vms_kept_ready": spares,
            "p50_s": quantile(warm, 0.5),
            "p99_s": quantile(warm, 0.99),
            "max_s": max(warm),
            "floor_s": floor,
            "ratio_to_floor": quantile(warm, 0.5) / floor,
            "from_template": modes,
            "steps_p50_s": steps,
        }
        if spares:
            say(f"Starting {min(runs, 10)} pods with no VMs kept ready")
            bed.restart_agent("--spare-vms=0")
            _one_by_one(bed, 1, "loads", 0)  # the template, from the disk
            restored, _ = _one_by_one(bed, min(runs, 10), "restored", pause_s)
            figures["restored_p50_s"] = quantile(restored, 0.5)
            figures["restored_to_floor"] = quantile(restored, 0.5) / floor
            figures["restored_from_template"] = _modes(bed, "restored")
        if cold_runs:
            say(f"Starting {cold_runs} pods with templates off")
            bed.restart_agent("--no-templates")
            cold, _ = _one_by_one(bed, cold_runs, "cold", pause_s)
            figures["cold_p50_s"] = quantile(cold, 0.5)
            figures["cold_floor_s"] = asyncio.run(_floor(bed, min(cold_runs, 5), template=False))
            figures["cold_to_warm"] = quantile(cold, 0.5) / quantile(warm, 0.5)
        return figures


def burst(pods: int) -> Figures:
    """Measure how long `pods` pods that are created at once take until all are Ready.

    Beside it the same crowd where no VM is kept ready, so that each is restored for its pod.
    """
    with test_bed() as bed:
        _let_templates_settle(bed)
        spares = bed.wait_spares()
        figures: Figures = {"n": pods, "vms_kept_ready": spares, **_crowd(bed, pods, "burst")}
        bed.restart_agent("--spare-vms=0")
        _one_by_one(bed, 1, "loads", 0)  # the template, from the disk
        figures["restored_all_ready_s"] = _crowd(bed, pods, "restored")["all_ready_s"]
        return figures


def _crowd(bed: Bed, pods: int, prefix: str) -> Figures:
    say(f"Creating {pods} pods at once")
    names = [f"{prefix}-{i}" for i in range(pods)]
    began = time.monotonic()
    for name in names:
        bed.create(name)
    bed.wait_all_ready(names)
    each = [bed.seconds_to_ready(name) for name in names]
    last = max(bed.watch.seen[name].ready or 0 for name in names)
    figures: Figures = {
        "all_ready_s": last - began,
        "p50_s": quantile(each, 0.5),
        "max_s": max(each),
        "started_cold": pods - _modes(bed, prefix),
    }
    bed.delete(names)
    return figures


def _one_by_one(bed: Bed, runs: int, prefix: str, pause_s: float) -> tuple[list[float], str]:
    """Return how long each pod took, and where the time went in the median of them."""
    seconds = []
    steps: dict[str, list[float]] = {}
    for i in range(runs):
        name = f"{prefix}-{i}"
        time.sleep(pause_s)
        bed.create(name)
        bed.wait_all_ready([name])
        seconds.append(bed.seconds_to_ready(name))
        for step, (began, ended) in bed.steps(name).items():
            steps.setdefault(step, []).append(ended - began)
        bed.delete([name])
    medians = {step: quantile(took, 0.5) for step, took in steps.items()}
    return seconds, " ".join(f"{step}={took:.3f}" for step, took in medians.items())


def _let_templates_settle(bed: Bed) -> None:
    """Run pods until one comes from a template: they are made in the background at start."""
    deadline = time.monotonic() + 120
    for i in range(1000):
        name = f"settle-{i}"
        bed.create(name)
        bed.wait_all_ready([name])
        bed.delete([name])
        if _modes(bed, "settle"):
            return
        if time.monotonic() > deadline:
            say("No pod came from a template within 120 s; measuring cold starts")
            return
        time.sleep(1)


def _modes(bed: Bed, prefix: str) -> int:
    """Return how many pods of that prefix say that they were restored from a template."""
    pods = [s.pod for n, s in bed.watch.seen.items() if n.startswith(prefix)]
    key = "vk-provider.dev/start-mode"
    return sum(p["metadata"].get("annotations", {}).get(key) == "template" for p in pods)


async def _floor(bed: Bed, runs: int, *, template: bool) -> float:
    async with BareVms(bed, template=template) as vms:
        return quantile([await vms.seconds_to_answer() for _ in range(runs)], 0.5)
