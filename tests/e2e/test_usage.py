"""What a pod uses, by the second: in `vk-provider top`, and where autoscalers read it."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cluster, Namespace
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

_CPU_S = 10
_LEAST_PER_CPU_S = 1.9
"""Of wall time: with half a CPU it takes twice as long, and a busy host only makes it longer."""
# By its own clock. What Python takes to start is in it, and under emulation that is seconds.
_BURN = (
    "import time\n"
    "began, had = time.monotonic(), time.process_time()\n"
    f"while time.process_time() < {_CPU_S}: pass\n"
    "print(time.monotonic() - began, time.process_time() - had, flush=True)\n"
    "time.sleep(100000)"
)


def test_half_a_cpu_for_twenty_seconds_is_ten_cpu_seconds(
    cluster: Cluster, namespace: Namespace, tmp_path: Path
) -> None:
    with _top(cluster, tmp_path / "top.json") as samples:
        namespace.pod(
            "burner",
            "",
            image=cluster.tools,
            container={
                "command": ["python3", "-c", _BURN],
                "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}},
            },
        )
        until(lambda: namespace.logs("burner").endswith("\n"))
        lasted_s, burnt_s = map(float, namespace.logs("burner").split())
        burnt = len(samples())
        until(lambda: len(samples()) > burnt + 3)  # the figures are a second old
        every = samples()
    mine = [pod for sample in every for pod in sample["pods"] if pod["name"] == "burner"]
    used = [pod["containers"][0]["cpu_ns"] / 1e9 for pod in mine if pod["containers"]]
    assert used == sorted(used)
    assert lasted_s >= _LEAST_PER_CPU_S * burnt_s
    _check_each_second(mine)
    shown = mine[-1]
    print(f"top: {used[-1]:.3f} CPU-seconds, {shown['cpu_ns'] / 1e9:.3f} with the pod's own")
    assert used[-1] == pytest.approx(_CPU_S, rel=0.03)
    assert shown["cpu_ns"] / 1e9 == pytest.approx(_CPU_S, rel=0.03)

    node = f"/api/v1/nodes/{cluster.settings.node_name}/proxy"
    metrics = cluster.kubectl.run("get", "--raw", f"{node}/metrics/resource")
    for name in ("container_cpu_usage_seconds_total", "pod_cpu_usage_seconds_total"):
        assert _metric(metrics, name, "burner") == pytest.approx(_CPU_S, rel=0.03)
    summary = json.loads(cluster.kubectl.run("get", "--raw", f"{node}/stats/summary"))
    pod = next(p for p in summary["pods"] if p["podRef"]["name"] == "burner")
    for told in (pod["containers"][0], pod):
        assert told["cpu"]["usageCoreNanoSeconds"] / 1e9 == pytest.approx(_CPU_S, rel=0.03)


def _check_each_second(pods: list[dict[str, Any]]) -> None:
    """While it burns there is a new sample each second, of more CPU time than the one before."""
    last = pods[-1]["containers"][0]["cpu_ns"]
    burning = [
        (pod["time_ns"] / 1e9, pod["containers"][0]["cpu_ns"])
        for pod in pods
        if pod["containers"] and 0 < pod["containers"][0]["cpu_ns"] < last
    ]
    pairs = list(itertools.pairwise(burning))
    print("burner:", " ".join(f"{b - a:.3f} s {(y - x) / 1e6:.0f} ms" for (a, x), (b, y) in pairs))
    assert all(0.5 < b - a < 1.6 for (a, _), (b, _) in pairs)
    assert all(x < y for (_, x), (_, y) in pairs)
    span = burning[-1][0] - burning[0][0]
    assert span >= _CPU_S * _LEAST_PER_CPU_S - 1
    assert abs(len(pairs) - span) <= 1


def test_samples_are_one_second_apart(cluster: Cluster, namespace: Namespace) -> None:
    namespace.pod("idle", "exec sleep 100000")
    done = subprocess.run(
        [*_top_command(cluster), "--samples=21"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(samples) == 21
    times = [sample["time_ns"] / 1e9 for sample in samples]
    of_pod = [
        pod["time_ns"] / 1e9
        for sample in samples
        for pod in sample["pods"]
        if pod["name"] == "idle"
    ]
    for what, at in (("top", times), ("pod", of_pod)):
        gaps = [b - a for a, b in itertools.pairwise(at)]
        print(f"{what}: {' '.join(f'{gap:.3f}' for gap in gaps)}")
        assert statistics.median(gaps) == pytest.approx(1, rel=0.03)
        assert at[-1] - at[0] == pytest.approx(20, rel=0.1)


def _top_command(cluster: Cluster) -> list[str]:
    return ["vk-provider", "top", "--json", f"--agent-socket={cluster.settings.agent_socket}"]


@contextmanager
def _top(cluster: Cluster, file: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Run `top`; yield how to get what it has said so far."""
    with file.open("wb") as output, subprocess.Popen(_top_command(cluster), stdout=output) as top:
        try:
            yield lambda: [json.loads(line) for line in file.read_text().splitlines()[:-1]]
        finally:
            top.terminate()


def _metric(text: str, name: str, pod: str) -> float:
    (line,) = [
        line
        for line in text.splitlines()
        if line.startswith(f"{name}{{") and f'pod="{pod}"' in line
    ]
    return float(line.split("}")[1].split()[0])
