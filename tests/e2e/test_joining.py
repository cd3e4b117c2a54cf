"""hack/up with KUBECONFIG: a host that has nothing yet joins a cluster that is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hack.devcluster import bootstrap, demo, joined, pki
from hack.devcluster import cluster as dev
from hack.devcluster.demo import Kubectl
from hack.devcluster.leftovers import look
from hack.devcluster.processes import running, stop
from hack.devcluster.settings import ClusterSettings, default_settings
from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e


@pytest.fixture
def host(cluster: Cluster, tmp_path: Path) -> Iterator[ClusterSettings]:
    """A host with nothing on it: the session's node and agent make room for another's."""
    for name in ("node", "agent"):
        record = running(cluster.settings, name)
        assert record is not None
        stop(cluster.settings, record)
    yield replace(
        default_settings(),
        directory=tmp_path / "up",
        run_directory=Path("/run/vk-provider/joined"),
        log_directory=tmp_path / "pods",
        node_name="vk-joined",
        registry_port=5011,
    )
    cluster.start_agent()
    cluster.start_node()
    dev.wait_node_ready(cluster.settings, cluster.builds, cluster.kubectl, ["agent", "node"])


def test_joins_as_a_node_runs_the_demo_and_leaves(cluster: Cluster, host: ClusterSettings) -> None:
    given = cluster.settings.admin_kubeconfig
    try:
        settings, kubectl = dev.join(host, cluster.builds, given, print)
        own = Kubectl(
            cluster.builds.control_plane / "kubectl", host.directory / "node/pki/kubeconfig"
        )
        who = own.json("auth", "whoami")["status"]["userInfo"]
        assert who["username"] == "system:node:vk-joined"
        assert "system:nodes" in who["groups"]
        lines = demo.run(kubectl, settings, f"{settings.registry}/test/busybox:1")
        assert len(set(lines)) == 2
        pods = kubectl.json("get", "pods", "-l", f"app={demo.NAME}", "-n", "default")["items"]
        assert {p["spec"]["nodeName"] for p in pods} == {"vk-joined"}
        there = {f.what: f.found for f in look(settings)}
        assert sum(name.startswith("veth") for name in there["network interfaces"]) >= 2
        made = bootstrap.manifest(host)
        assert kubectl.run("get", "-f", "-", "-o", "name", stdin=made)
    finally:
        dev.take_down(joined.recall(host), print)
    assert not {f.what: f.found for f in look(settings) if f.found}
    assert not kubectl.run("get", "-f", "-", "-o", "name", "--ignore-not-found", stdin=made)
    assert not kubectl.run("get", "node/vk-joined", "-o", "name", "--ignore-not-found")
    assert not kubectl.json("get", "deployments,pods", "-n", "default")["items"]


def test_says_which_rights_a_kubeconfig_lacks(cluster: Cluster, tmp_path: Path) -> None:
    pki.make_user(cluster.settings, "passer-by", "passer-by")
    kubeconfig = tmp_path / "kubeconfig"
    pki.write_kubeconfig(cluster.settings, kubeconfig, "passer-by")
    directory = tmp_path / "up"
    with pytest.raises(SystemExit, match="may not create secrets, create clusterrolebindings"):
        dev.join(replace(cluster.settings, directory=directory), cluster.builds, kubeconfig, print)
    assert not directory.exists()
