"""Pods come and go at random while node and agent are killed at random; then all must be right.

Used by test_churn.py for some minutes, and for a longer recorded run:
VK_CHURN_MINUTES=30 hack/test churn
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from dataclasses import dataclass, field

from hack.devcluster.leftovers import look
from hack.devcluster.processes import records, running
from tests.e2e.conftest import Cluster, Namespace
from tests.e2e.counters import counted, start_counter

COUNTERS = 2
MOST_PODS = 6


@dataclass
class Tally:
    """What was done."""

    created: int = 0
    deleted: int = 0
    entered: int = 0
    read: int = 0
    killed: dict[str, int] = field(default_factory=lambda: {"agent": 0, "node": 0})


class Churn:
    """One run: `go`, then `settle`, then the checks."""

    def __init__(self, cluster: Cluster, namespace: Namespace, seed: int) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.random = random.Random(seed)
        self.tally = Tally()
        self.living: list[str] = []
        self.leaving: list[str] = []
        self._numbers = itertools.count()

    def go(self, seconds: float, kill_each_s: float) -> None:
        """Act at random for that long."""
        for i in range(COUNTERS):
            start_counter(self.namespace, f"counter-{i}")
        for i in range(COUNTERS):
            self.namespace.wait(f"pod/counter-{i}", "condition=Ready")
        end = time.monotonic() + seconds
        next_kill = time.monotonic() + self.random.uniform(0.5, 1.5) * kill_each_s
        while time.monotonic() < end:
            if time.monotonic() >= next_kill:
                self._kill(self.random.choice(["agent", "node"]))
                next_kill = time.monotonic() + self.random.uniform(0.5, 1.5) * kill_each_s
            actions = [self._enter, self._read]
            if len(self.living) < MOST_PODS:
                actions += [self._create, self._create]
            if self.living:
                actions.append(self._delete)
            self.random.choice(actions)()
            time.sleep(self.random.uniform(0, 0.5))

    def settle(self) -> None:
        """Wait until every pod that should run is Ready and every deleted one is gone."""
        for name in self._expected():
            self.namespace.wait(f"pod/{name}", "condition=Ready", timeout_s=120)
        for name in self.leaving:
            self.namespace.kubectl("wait", "--for=delete", f"pod/{name}", "--timeout=120s")

    def check_pods(self) -> None:
        """Every pod runs, was never restarted, and no other is there."""
        pods = {p["metadata"]["name"]: p for p in self.namespace.json("get", "pods")["items"]}
        assert sorted(pods) == sorted(self._expected())
        for name, pod in pods.items():
            assert pod["status"]["phase"] == "Running", name
            restarts = [c["restartCount"] for c in pod["status"]["containerStatuses"]]
            assert restarts == [0], (name, pod["status"])

    def check_logs(self) -> int:
        """No number is missing or doubled in a counter's log; returns how many there were."""
        return sum(counted(self.namespace, f"counter-{i}") for i in range(COUNTERS))

    def check_host(self) -> None:
        """The host holds one VM, one namespace and so on for each pod, and nothing else."""
        wanted = len(self._expected())
        found = {f.what: f.found for f in look(self.cluster.settings)}
        machines = [p for p in found["processes"] if p.startswith("QEMU")]
        assert len(machines) == wanted, machines
        assert len(found["network namespaces"]) == wanted, found["network namespaces"]
        state = self.cluster.settings.directory / "agent" / "sandboxes"
        assert len(list(state.iterdir())) == wanted
        logs = [d for d in self.cluster.settings.log_directory.iterdir() if d.is_dir()]
        mine = [d for d in logs if d.name.startswith(f"{self.namespace.name}_")]
        assert len(mine) == wanted, mine

    def _expected(self) -> list[str]:
        return [f"counter-{i}" for i in range(COUNTERS)] + self.living

    def _create(self) -> None:
        name = f"pod-{next(self._numbers)}"
        self.namespace.pod(name, "echo up; exec sleep 100000", wait="")
        self.living.append(name)
        self.tally.created += 1

    def _delete(self) -> None:
        name = self.living.pop(self.random.randrange(len(self.living)))
        self.namespace.kubectl("delete", "pod", name, "--wait=false")
        self.leaving.append(name)
        self.tally.deleted += 1

    def _enter(self) -> None:
        # While node or agent is away an exec fails, and says so; it must never hang.
        name = self.random.choice(self._expected())
        self.namespace.raw("exec", name, "--", "true")
        self.tally.entered += 1

    def _read(self) -> None:
        name = self.random.choice(self._expected())
        self.namespace.raw("logs", "--tail=5", name)
        self.tally.read += 1

    def _kill(self, name: str) -> None:
        record = running(self.cluster.settings, name)
        if record is None:
            story = json.dumps([r.__dict__ for r in records(self.cluster.settings)])
            raise AssertionError(f"{name} ended by itself: {story}")
        os.kill(record.pid, signal.SIGKILL)
        self.tally.killed[name] += 1
        time.sleep(self.random.uniform(0, 2))
        _gone(record.pid)
        self.cluster.start_agent() if name == "agent" else self.cluster.start_node()


def _gone(pid: int) -> None:
    """Reap the killed child, so that its record counts as ended."""
    os.waitpid(pid, 0)
