"""Node, agent, VMs and the API server end at any moment; pods do not notice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from hack.devcluster.processes import running
from tests.e2e.churn import Churn
from tests.e2e.conftest import Cluster, Namespace
from tests.e2e.counters import start_counter
from tests.support.waiting import until

pytestmark = pytest.mark.e2e


_MINUTES = int(os.environ.get("VK_CHURN_MINUTES", "5"))
_KILL_EACH_S = 15


@pytest.mark.timeout(900 + 60 * _MINUTES)
def test_churn_loses_and_leaks_nothing(cluster: Cluster, namespace: Namespace) -> None:
    churn = Churn(cluster, namespace, seed=int(os.environ.get("VK_CHURN_SEED", "1")))
    churn.go(_MINUTES * 60, _KILL_EACH_S)
    churn.settle()
    churn.check_pods()
    churn.check_host()
    churn.check_streams()
    # 100 a second at most, fewer on a busy host; a log that stood still has next to none.
    numbers = churn.check_logs(at_least=_MINUTES * 60 * 20)
    print(f"churn: {churn.tally}, {numbers} numbers counted")
    tally = churn.tally
    assert min(tally.killed.values()) >= 20 * _MINUTES // 30
    assert tally.refused < tally.entered + tally.read
    churn.check_pods()
    churn.check_nothing_stays()


def test_a_killed_vm_is_reported_and_its_pod_restarted(
    cluster: Cluster, namespace: Namespace
) -> None:
    start_counter(namespace, "victim")
    namespace.wait("pod/victim", "condition=Ready")
    until(lambda: len(namespace.logs("victim").splitlines()) > 100)
    seen = len(namespace.logs("victim").splitlines())
    os.kill(_qemu_of(cluster, namespace, "victim"), signal.SIGKILL)
    until(lambda: _restarts(namespace, "victim") == 1)
    namespace.wait("pod/victim", "condition=Ready")
    status = namespace.json("get", "pod", "victim")["status"]["containerStatuses"][0]
    ended = status["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "Error")
    assert "SIGKILL" in ended["message"]
    numbers = [int(line) for line in namespace.logs("victim", "--previous").splitlines()]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= seen


def test_a_pod_deleted_while_the_node_is_away_is_gone_when_it_returns(
    cluster: Cluster, namespace: Namespace
) -> None:
    namespace.pod("goner", "exec sleep 100000")
    namespace.pod("stayer", "exec sleep 100000")
    node = running(cluster.settings, "node")
    assert node is not None
    os.kill(node.pid, signal.SIGKILL)
    os.waitpid(node.pid, 0)
    namespace.kubectl("delete", "pod", "goner", "--wait=false", "--force", "--grace-period=0")
    cluster.start_node()
    until(lambda: _machines_of(cluster, namespace) == {"stayer"})
    assert _restarts(namespace, "stayer") == 0


def _qemu_of(cluster: Cluster, namespace: Namespace, pod: str) -> int:
    uid = namespace.json("get", "pod", pod)["metadata"]["uid"]
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"qemu-system" in words and _sandbox_id(uid).encode() in words:
            return int(directory.name)
    raise AssertionError(f"no QEMU for pod {pod}")


def _sandbox_id(uid: str, attempt: int = 0) -> str:
    from vk_provider.runtime.ids import sandbox_id

    return sandbox_id(uid, attempt)


def _machines_of(cluster: Cluster, namespace: Namespace) -> set[str]:
    directory = cluster.settings.log_directory
    mine = [d.name for d in directory.iterdir() if d.name.startswith(f"{namespace.name}_")]
    return {name.split("_")[1] for name in mine}


def _restarts(namespace: Namespace, pod: str) -> int:
    statuses = namespace.json("get", "pod", pod)["status"].get("containerStatuses", [])
    return int(statuses[0]["restartCount"]) if statuses else 0
