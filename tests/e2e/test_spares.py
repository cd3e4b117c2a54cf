"""VMs that are kept ready, on a real host: pods take them, a killed agent leaves none behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.devcluster.leftovers import look
from hack.devcluster.processes import running, stop
from tests.e2e.conftest import Cluster, Namespace
from tests.support.waiting import listens, until
from vk_provider.runtime.ids import sandbox_id

pytestmark = pytest.mark.e2e

_SMALLEST = {"resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}


@pytest.fixture
def cluster_with_spares(cluster: Cluster) -> Iterator[Cluster]:
    _stop_agent(cluster)
    cluster.start_agent(spare_vms=1)
    yield cluster
    _stop_agent(cluster)
    cluster.start_agent()
    until(lambda: listens(cluster.settings.agent_socket))  # the tests to come take it for granted


def test_a_pod_takes_a_vm_that_was_ready_and_keeps_it_over_a_kill(
    cluster_with_spares: Cluster, namespace: Namespace
) -> None:
    cluster = cluster_with_spares
    until(lambda: len(_machines(cluster)) == 1)
    (spare,) = _machines(cluster)
    namespace.pod(
        "taker", "echo $HOSTNAME; cat /proc/sys/kernel/random/uuid; exec sleep 100000",
        container=_SMALLEST,
    )  # fmt: skip
    uid = namespace.json("get", "pod", "taker")["metadata"]["uid"]
    assert spare != sandbox_id(uid, 0)
    until(lambda: namespace.logs("taker").startswith("taker\n"))
    selector = "--field-selector=involvedObject.name=taker,reason=SandboxStarted"
    until(lambda: namespace.json("get", "events", selector)["items"])
    (told,) = [e["message"] for e in namespace.json("get", "events", selector)["items"]]
    assert ", from a template (one of the VMs kept ready; template " in told
    figures = cluster.kubectl.run("get", "--raw", "/api/v1/nodes/vk-node/proxy/metrics")
    name = "vk_provider_sandbox_start_phase_duration_seconds_count"
    for phase in ("ready_vm_restore", "ready_scratch_mount", "network", "configure"):
        assert f'{name}{{phase="{phase}",start_mode="template"}} ' in figures
    until(lambda: len(_machines(cluster)) == 2)  # and the next one is made
    (agent,) = [running(cluster.settings, "agent")]
    assert agent is not None
    os.kill(agent.pid, signal.SIGKILL)
    os.waitpid(agent.pid, 0)
    cluster.start_agent()
    # What nobody had taken is gone, and the pod's VM is the one that it was.
    until(lambda: _machines(cluster) == {spare})
    # The node finds the new agent when gRPC tries again.
    until(lambda: namespace.raw("exec", "taker", "--", "true").returncode == 0)
    statuses = namespace.json("get", "pod", "taker")["status"]["containerStatuses"]
    assert [status["restartCount"] for status in statuses] == [0]
    namespace.kubectl("delete", "pod", "taker", "--wait=true", timeout_s=100)
    until(lambda: not _machines(cluster))
    found = {finding.what: finding.found for finding in look(cluster.settings)}
    assert found["network namespaces"] == []
    assert list((cluster.settings.directory / "agent" / "sandboxes").iterdir()) == []


def _machines(cluster: Cluster) -> set[str]:
    """Return the ids of all VMs that are, or may become, a pod's; not those of templates."""
    mark = f"guest={cluster.settings.run_directory}/agent/sandboxes/"
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_text(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        found |= {word.removeprefix(mark) for word in words if word.startswith(mark)}
    return found


def _stop_agent(cluster: Cluster) -> None:
    record = running(cluster.settings, "agent")
    assert record is not None
    stop(cluster.settings, record)
