"""A node process that is asked to end, gets new credentials, and leaves; its pods go on, or go."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hack.devcluster import cluster as dev
from hack.devcluster import pki
from hack.devcluster.processes import Record, running, spawn, stop, tail
from tests.e2e.conftest import Cluster, Namespace
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

_SLEEP = "echo up; exec sleep 100000"


@pytest.fixture
def whole(cluster: Cluster) -> Iterator[None]:
    """Whatever the test did with them, agent and node run afterwards, and the node is Ready."""
    yield
    _make_whole(cluster)


@pytest.fixture
def stayer(cluster: Cluster, namespace: Namespace) -> Iterator[str]:
    """A pod that is the same one after the test, with no restart; and as `whole`."""
    namespace.pod("stayer", _SLEEP)
    before = _container_id(namespace)
    yield before
    _make_whole(cluster)
    namespace.wait("pod/stayer", "condition=Ready")
    assert _container_id(namespace) == before
    assert namespace.logs("stayer") == "up\n"
    assert namespace.kubectl("exec", "stayer", "--", "echo", "in") == "in\n"


def test_sigterm_ends_node_and_agent_and_no_pod(cluster: Cluster, stayer: str) -> None:
    machines = _machines()
    for name, start in (("node", cluster.start_node), ("agent", cluster.start_agent)):
        assert _terminate(cluster, name) < 15
        assert _machines() == machines
        start()


def test_sigterm_ends_run_with_both_its_parts_and_no_pod(cluster: Cluster, stayer: str) -> None:
    for name in ("node", "agent"):
        _terminate(cluster, name)
    machines = _machines()
    options = [
        *dev.agent_command(cluster.settings, cluster.builds),
        *dev.node_command(cluster.settings),
    ]
    spawn(cluster.settings, "vk-provider", ["vk-provider", "run", "--no-taint", *options])
    dev.wait_node_ready(cluster.settings, cluster.builds, cluster.kubectl, ["vk-provider"])
    parts = _children(running(cluster.settings, "vk-provider"))
    assert len(parts) == 2
    assert _terminate(cluster, "vk-provider") < 30
    assert not any(Path(f"/proc/{pid}").exists() for pid in parts)
    assert _machines() == machines


def test_a_rotated_kubeconfig_is_taken_up_before_the_old_certificate_ends(
    cluster: Cluster, stayer: str, tmp_path: Path
) -> None:
    settings = cluster.settings
    file = tmp_path / "node.kubeconfig"
    user = f"system:node:{settings.node_name}"
    lives = timedelta(seconds=45)
    for name, valid in (("node-old", lives), ("node-new", timedelta(days=1))):
        pki.make_user(settings, name, user, ["system:nodes"], valid)
    started = datetime.now(UTC)
    pki.write_kubeconfig(settings, file, "node-old")
    _terminate(cluster, "node")
    options = [o for o in dev.node_command(settings) if not o.startswith("--bootstrap")]
    command = ["vk-provider", "node", "--no-taint", f"--kubeconfig={file}", *options]
    spawn(settings, "node", command)
    until(lambda: _renewed(cluster) > started)
    pki.write_kubeconfig(settings, file, "node-new")
    until(lambda: _renewed(cluster) > started + lives + timedelta(seconds=10), within_s=150)
    assert _terminate(cluster, "node") < 15


def test_a_deleted_node_object_comes_back_and_its_pod_stays(cluster: Cluster, stayer: str) -> None:
    name = cluster.settings.node_name
    old = cluster.kubectl.json("get", "node", name)["metadata"]["uid"]
    cluster.kubectl.run("delete", "node", name)
    cluster.kubectl.run("wait", "--for=create", f"node/{name}", "--timeout=60s")
    cluster.kubectl.run("wait", "--for=condition=Ready", f"node/{name}", "--timeout=60s")
    assert cluster.kubectl.json("get", "node", name)["metadata"]["uid"] != old


def test_a_drain_ends_the_pods_and_keeps_the_node(
    whole: None, cluster: Cluster, namespace: Namespace
) -> None:
    name = cluster.settings.node_name
    namespace.pod("drained", _SLEEP)
    try:
        cluster.kubectl.run("drain", name, "--force", "--timeout=60s")
        assert namespace.json("get", "pods")["items"] == []
        until(lambda: not _machines())
        namespace.pod("late", _SLEEP, wait="PodScheduled=False")
    finally:
        cluster.kubectl.run("uncordon", name)
    namespace.wait("pod/late", "condition=Ready")


def test_a_node_leaves_its_cluster_for_good(
    whole: None, cluster: Cluster, namespace: Namespace
) -> None:
    settings = cluster.settings
    slowly = "trap 'sleep 3; exit 0' TERM; while :; do sleep 0.2; done"
    namespace.pod("slow", slowly, terminationGracePeriodSeconds=60)
    namespace.pod("quick", _SLEEP)
    namespace.pod("done", "true", restartPolicy="Never", wait="")
    namespace.wait("pod/done", "jsonpath={.status.phase}=Succeeded")

    code, _, words = _leave(cluster)
    assert code == 1
    assert "Another vk-provider node works in" in words

    _terminate(cluster, "node")
    code, said, words = _leave(cluster)
    assert code == 0, words
    for pod in ("slow", "quick", "done"):
        assert f"Ending {namespace.name}/{pod}" in said
    assert namespace.json("get", "pods")["items"] == []
    assert not _machines()
    assert f"kubectl delete node {settings.node_name}" in said
    node = cluster.kubectl.json("get", "node", settings.node_name)
    assert node["spec"]["unschedulable"] is True
    assert cluster.kubectl.json("-n", "kube-node-lease", "get", "leases")["items"] == []
    assert not (settings.directory / "node" / "pki").exists()

    # The administrator does as told; it joins again with its token, and leaves with help.
    cluster.kubectl.run("delete", "node", settings.node_name)
    cluster.start_node()
    dev.wait_node_ready(settings, cluster.builds, cluster.kubectl, ["agent", "node"])
    namespace.pod("again", _SLEEP)
    _terminate(cluster, "node")
    code, said, words = _leave(cluster, f"--admin-kubeconfig={settings.admin_kubeconfig}")
    assert code == 0, words
    assert f"Node {settings.node_name} is deleted" in said
    assert cluster.kubectl.json("get", "nodes")["items"] == []
    assert not _machines()


def _make_whole(cluster: Cluster) -> None:
    supervisor = running(cluster.settings, "vk-provider")
    if supervisor is not None:
        stop(cluster.settings, supervisor, grace_s=30)
    cluster.start_agent()
    cluster.start_node()
    dev.wait_node_ready(cluster.settings, cluster.builds, cluster.kubectl, ["agent", "node"])


def _leave(cluster: Cluster, *arguments: str) -> tuple[int, str, str]:
    options = [*dev.node_command(cluster.settings), *arguments]
    done = subprocess.run(
        ["vk-provider", "node", "leave", *options],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def _terminate(cluster: Cluster, name: str) -> float:
    """End a process by SIGTERM; return how many seconds it took."""
    record = running(cluster.settings, name)
    assert record is not None, tail(cluster.settings, name)
    began = time.monotonic()
    stop(cluster.settings, record, grace_s=60)
    return time.monotonic() - began


def _children(record: Record | None) -> set[int]:
    assert record is not None
    tasks = Path(f"/proc/{record.pid}/task/{record.pid}/children").read_text()
    return {int(pid) for pid in tasks.split()}


def _machines() -> set[str]:
    """Return the command lines of the QEMUs of this run that belong to pods."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"qemu-system" in words.split(b"\0")[0] and b"-netdev\0tap," in words:
            found.add(f"{directory.name} {words!r}")
    return found


def _container_id(namespace: Namespace) -> str:
    (status,) = namespace.json("get", "pod", "stayer")["status"]["containerStatuses"]
    assert status["restartCount"] == 0
    return str(status["containerID"])


def _renewed(cluster: Cluster) -> datetime:
    lease = cluster.kubectl.json(
        "-n", "kube-node-lease", "get", "lease", cluster.settings.node_name
    )
    return datetime.fromisoformat(lease["spec"]["renewTime"])
