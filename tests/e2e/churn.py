"""Pods come and go at random while node and agent are killed at random; then all must be right.

Five minutes of it are part of `hack/test e2e`; VK_CHURN_MINUTES=30 makes it a recorded run.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from hack.devcluster.leftovers import look
from hack.devcluster.processes import records, running
from hack.devcluster.remains import differences, remains
from tests.e2e.conftest import Cluster, Namespace
from tests.e2e.counters import counted, start_counter
from tests.support.waiting import listens, until

COUNTERS = 2
MOST_PODS = 6
#: VMs are kept ready while node and agent are killed; before and after there are none to count.
SPARE_VMS = 2


@dataclass
class Tally:
    """What was done."""

    created: int = 0
    deleted: int = 0
    entered: int = 0
    refused: int = 0  # of those that were entered or read: while node or agent was away
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
        self._killers = random.Random(seed + 1)
        self._numbers = itertools.count()
        self._before: dict[str, list[str]] = {}

    def go(self, seconds: float, kill_each_s: float) -> None:
        """Act at random for that long, while a second thread kills at moments of its own."""
        # A first pod has made what stays for those to come.
        self.namespace.pod("first", "exec sleep 100000")
        self.namespace.kubectl("delete", "pod", "first")
        self._before = remains(self.cluster.settings)
        for i in range(COUNTERS):
            start_counter(self.namespace, f"counter-{i}")
        for i in range(COUNTERS):
            self.namespace.wait(f"pod/counter-{i}", "condition=Ready")
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(self._kill_until, end, kill_each_s)
            while time.monotonic() < end and not killing.done():
                actions = [self._enter, self._read]
                if len(self.living) < MOST_PODS:
                    actions += [self._create, self._create]
                if self.living:
                    actions.append(self._delete)
                self.random.choice(actions)()
                time.sleep(self.random.uniform(0, 0.5))
            killing.result()

    def settle(self) -> None:
        """Wait until every pod that should run is Ready and every deleted one is gone."""
        self._restart(("agent",), spare_vms=0)
        until(lambda: listens(self.cluster.settings.agent_socket))
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

    def check_streams(self) -> None:
        """Every pod can be entered, and its log read."""
        for name in self._expected():
            # The node finds a new agent when gRPC tries again.
            until(partial(self._exec, name))
            assert self.namespace.logs("--tail=1", name)

    def check_logs(self, at_least: int) -> int:
        """No number is missing or doubled in a counter's log, and more come.

        Returns how many there were.
        """
        total = 0
        for name in (f"counter-{i}" for i in range(COUNTERS)):
            numbers = counted(self.namespace, name)
            assert numbers >= at_least, f"{name} counted to {numbers} only"
            until(partial(self._counts_on, name, numbers))
            total += numbers
        return total

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

    def check_nothing_stays(self) -> None:
        """Without its pods the host has what it had before them."""
        self.namespace.kubectl("delete", "pods", "--all", "--timeout=120s")
        settings = self.cluster.settings
        until(
            lambda: not differences(self._before, remains(settings)),
            lambda: str(differences(self._before, remains(settings))),
        )

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
        self.tally.refused += not self._exec(self.random.choice(self._expected()))
        self.tally.entered += 1

    def _exec(self, name: str) -> bool:
        return self.namespace.raw("exec", name, "--", "true").returncode == 0

    def _counts_on(self, name: str, numbers: int) -> bool:
        return counted(self.namespace, name) > numbers

    def _read(self) -> None:
        name = self.random.choice(self._expected())
        self.tally.refused += self.namespace.raw("logs", "--tail=5", name).returncode != 0
        self.tally.read += 1

    def _kill_until(self, end: float, each_s: float) -> None:
        while (moment := time.monotonic() + self._killers.uniform(0.5, 1.5) * each_s) < end:
            time.sleep(moment - time.monotonic())
            self._restart(self._killers.choice([("agent",), ("node",), ("agent", "node")]))

    def _restart(self, names: tuple[str, ...], spare_vms: int = SPARE_VMS) -> None:
        """Kill these together, and start them again a moment later."""
        for name in names:
            record = running(self.cluster.settings, name)
            if record is None:
                story = json.dumps([r.__dict__ for r in records(self.cluster.settings)])
                raise AssertionError(f"{name} ended by itself: {story}")
            os.kill(record.pid, signal.SIGKILL)
            self.tally.killed[name] += 1
            os.waitpid(record.pid, 0)  # its record counts as ended then
        time.sleep(self._killers.uniform(0, 2))
        for name in names:
            if name == "agent":
                self.cluster.start_agent(spare_vms)
            else:
                self.cluster.start_node()
