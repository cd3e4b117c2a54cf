"""The API server is away while pods live, crash, complete, become ready and leave.

VK_OUTAGE_S=600 makes it the ten minutes of a recorded run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from hack.devcluster import control_plane
from hack.devcluster.processes import running
from tests.e2e.conftest import Cluster, Namespace
from tests.e2e.counters import counted, start_counter
from tests.support.waiting import until
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.runtime.exec_sync import exec_sync
from vk_provider.runtime.grpc_client import AgentClient

pytestmark = pytest.mark.e2e

_OUTAGE_S = int(os.environ.get("VK_OUTAGE_S", "45"))
_RIGHT_WITHIN_S = 10
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_WAIT = "while ! [ -e /tmp/go ]; do sleep 0.2; done; "
_STAY = ("stays-0", "stays-1", "counter", "turns-ready", "turns-unready")


@pytest.mark.timeout(900 + _OUTAGE_S)
def test_an_outage_under_load(cluster: Cluster, namespace: Namespace) -> None:
    load = Load(cluster, namespace)
    load.make()
    before = load.truth()
    namespace.kubectl("delete", "pod", "leaves", "--wait=false")

    _kill(cluster, "kube-apiserver")
    ends = time.monotonic() + _OUTAGE_S
    load.change(before)
    time.sleep(max(0.0, ends - time.monotonic()))
    after = load.truth()
    for name in _STAY:
        assert after[name].container_id == before[name].container_id
        assert after[name].state == pb.CONTAINER_RUNNING
    assert after["crashes"].attempt > before["crashes"].attempt

    clock = datetime.now(UTC)  # the Lease is renewed later than this, if only before /readyz
    control_plane.start_api_server(cluster.settings, cluster.builds.control_plane)
    returned = time.monotonic()
    load.wait_right(before, clock)
    right_after = time.monotonic() - returned
    print(f"outage of {_OUTAGE_S} s: all right {right_after:.1f} s after the return")

    # The rest of the control plane takes longer; what it does meanwhile must not stay.
    namespace.wait("job/once", "condition=Complete", timeout_s=120)
    namespace.pod("newcomer", "exec sleep 100000")
    load.wait_right(before, clock)
    until(lambda: "Unhealthy" in _event_reasons(namespace, "turns-unready"))
    numbers = counted(namespace, "counter")
    print(
        f"{numbers} numbers without a gap, "
        f"{after['crashes'].attempt - before['crashes'].attempt} restarts of the crashing pod"
    )
    assert numbers > 5 * _OUTAGE_S  # of at most 100 a second; a log that stood still has fewer
    assert right_after < _RIGHT_WITHIN_S


@pytest.mark.timeout(600)
def test_a_node_and_an_agent_that_start_without_an_api_server(
    cluster: Cluster, namespace: Namespace
) -> None:
    namespace.pod("stayer", "exec sleep 100000")
    before = _shown(namespace.json("get", "pod", "stayer"))
    start_counter(namespace, "counter")
    namespace.wait("pod/counter", "condition=Ready")
    for name in ("kube-apiserver", "node", "agent"):
        _kill(cluster, name)
    cluster.start_agent()
    cluster.start_node()
    time.sleep(20)  # long enough to draw wrong conclusions
    assert running(cluster.settings, "node") is not None
    control_plane.start_api_server(cluster.settings, cluster.builds.control_plane)
    namespace.pod("newcomer", "exec sleep 100000")
    assert _shown(namespace.json("get", "pod", "stayer")) == before
    assert _shown(namespace.json("get", "pod", "counter"))[:3] == ("Running", True, 0)
    counted(namespace, "counter")


class Load:
    """The pods, what happens to them while nobody can be told, and what the API must say of it."""

    def __init__(self, cluster: Cluster, namespace: Namespace) -> None:
        self._cluster = cluster
        self._namespace = namespace

    def make(self) -> None:
        """Make the pods and return when each is in its first state."""
        pods = self._namespace
        probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
        # Time enough for a busy host: a probe that is late finds a pod unready, and rightly so.
        probed = {"readinessProbe": {**probe, "failureThreshold": 1, "timeoutSeconds": 20}}
        for name in ("stays-0", "stays-1"):
            pods.pod(name, "exec sleep 100000", wait="")
        start_counter(pods, "counter")
        pods.pod("crashes", "echo boom; exit 1", wait="")
        pods.pod("fails", f"{_WAIT} exit 3", restartPolicy="Never", wait="")
        pods.pod("turns-ready", "exec sleep 100000", container=probed, wait="")
        ready = "touch /tmp/ready; exec sleep 100000"
        pods.pod("turns-unready", ready, container=probed, wait="")
        slowly = "trap 'sleep 10; exit 0' TERM; while :; do sleep 0.2; done"
        pods.pod("leaves", slowly, terminationGracePeriodSeconds=30, wait="")
        pods.kubectl("create", "-f", "-", stdin=json.dumps(self._job()))
        for name in ("stays-0", "stays-1", "counter", "fails", "turns-unready", "leaves"):
            pods.wait(f"pod/{name}", "condition=Ready", timeout_s=120)
        pods.wait("job/once", "jsonpath={.status.ready}=1", timeout_s=120)
        pods.wait("pod/turns-ready", "jsonpath={.status.phase}=Running")
        until(lambda: self.truth()["crashes"].attempt >= 1)

    def change(self, before: dict[str, pb.ContainerStatus]) -> None:
        """Have pods complete, fail and change their readiness."""
        for name, command in (
            ("once", "touch /tmp/go"),
            ("fails", "touch /tmp/go"),
            ("turns-ready", "touch /tmp/ready"),
            ("turns-unready", "rm /tmp/ready"),
        ):
            self._run_in(before[name].container_id, command)

    def truth(self) -> dict[str, pb.ContainerStatus]:
        """Return what the agent says: of each pod, the newest run of its container."""
        found: dict[str, pb.ContainerStatus] = {}
        for sandbox in self._ask(lambda agent: agent.list_sandboxes()).sandboxes:
            if sandbox.pod.namespace != self._namespace.name:
                continue
            name = "once" if sandbox.pod.name.startswith("once-") else sandbox.pod.name
            for container in sandbox.containers:
                if name not in found or container.attempt > found[name].attempt:
                    found[name] = container
        return found

    def wait_right(self, before: dict[str, pb.ContainerStatus], returned: datetime) -> None:
        """Return when the API says nothing that is not true."""
        began = time.monotonic()
        said: list[str] = []
        while wrong := self.wrong(before, returned):
            if wrong != said:
                print(f"  after {time.monotonic() - began:.1f} s: {wrong}")
            said = wrong
            assert time.monotonic() - began < 60, wrong
            time.sleep(0.1)

    def wrong(self, before: dict[str, pb.ContainerStatus], returned: datetime) -> list[str]:
        """Return what the API says that is not true."""
        name = self._cluster.settings.node_name
        try:
            listed = self._get(f"/api/v1/namespaces/{self._namespace.name}/pods")
            node = self._get(f"/api/v1/nodes/{name}")
            lease = self._get(f"{_LEASES}/{name}")
        except urllib.error.HTTPError as error:
            error.close()
            return [str(error)]
        except OSError as error:
            return [str(error)]
        pods = {self._name(pod): pod for pod in listed["items"]}
        shown = {name: _shown(pod) for name, pod in pods.items()}
        wanted: dict[str, Any] = {
            name: ("Running", name != "turns-unready", 0, f"vk://{before[name].container_id}")
            for name in _STAY
        }
        wrong = [f"{n}: {shown.get(n)}" for n, want in wanted.items() if shown.get(n) != want]
        for name, phase, code in (("once", "Succeeded", 0), ("fails", "Failed", 3)):
            if _ended(pods.get(name)) != (phase, code):
                wrong.append(f"{name}: {_ended(pods.get(name))}")
        if (runs := self.truth()["crashes"].attempt) != shown["crashes"][2]:
            wrong.append(f"crashes: {shown['crashes']}, it was started again {runs} times")
        if "leaves" in pods:
            wrong.append("leaves: still there")
        conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
        if conditions["Ready"] != "True":
            wrong.append(f"node: {conditions}")
        if datetime.fromisoformat(lease["spec"]["renewTime"]) < returned:
            wrong.append(f"lease: {lease['spec']}")
        return wrong

    def _get(self, path: str) -> Any:
        """Read from the API; kubectl takes seconds on a busy host, and seconds count here."""
        certificates = self._cluster.settings.pki
        context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        context.load_cert_chain(certificates / "admin.crt", certificates / "admin.key")
        url = f"{self._cluster.settings.api_url}{path}"
        with urllib.request.urlopen(url, context=context, timeout=10) as answer:
            return json.load(answer)

    def _name(self, pod: dict[str, Any]) -> str:
        return (
            "once" if "job-name" in pod["metadata"].get("labels", {}) else pod["metadata"]["name"]
        )

    def _job(self) -> dict[str, Any]:
        main = {
            "name": "main",
            "image": self._cluster.busybox,
            "command": ["sh", "-c", f"{_WAIT} echo done"],
        }
        template = {"spec": {"restartPolicy": "Never", "containers": [main]}}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "once"},
            "spec": {"template": template},
        }

    def _run_in(self, container_id: str, command: str) -> None:
        words = ["sh", "-c", command]
        done = self._ask(lambda agent: exec_sync(agent, container_id, words))
        assert done.code == 0, done

    def _ask(self, question: Callable[[AgentClient], Any]) -> Any:
        async def ask() -> Any:
            async with AgentClient(f"unix:{self._cluster.settings.agent_socket}") as agent:
                return await question(agent)

        return asyncio.run(ask())


def _shown(pod: dict[str, Any]) -> tuple[str, bool, int, str]:
    """Return phase, readiness, restarts and the container's id."""
    status = pod["status"]
    conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
    (container,) = status.get("containerStatuses", [{}])
    ready = conditions.get("Ready") == "True"
    id_ = container.get("containerID", "")
    return status["phase"], ready, container.get("restartCount", 0), id_


def _ended(pod: dict[str, Any] | None) -> tuple[str, int]:
    status = (pod or {}).get("status", {})
    states = [c["state"].get("terminated", {}) for c in status.get("containerStatuses", ())]
    return status.get("phase", ""), next((s.get("exitCode", -1) for s in states), -1)


def _kill(cluster: Cluster, name: str) -> None:
    record = running(cluster.settings, name)
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    os.waitpid(record.pid, 0)


def _event_reasons(namespace: Namespace, pod: str) -> set[str]:
    events = namespace.json("get", "events", f"--field-selector=involvedObject.name={pod}")
    return {event["reason"] for event in events["items"]}
