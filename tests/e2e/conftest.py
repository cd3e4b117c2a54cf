"""A real cluster with one virtual node, started once for the session in this run's namespaces."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hack.devcluster import cluster as dev
from hack.devcluster.demo import Kubectl
from hack.devcluster.leftovers import look
from hack.devcluster.processes import Record, spawn, tail
from hack.devcluster.settings import ClusterSettings, default_settings

_numbers = itertools.count(1)


@dataclass
class Cluster:
    """The running cluster and the verbs that tests use."""

    settings: ClusterSettings
    builds: dev.Builds
    kubectl: Kubectl

    @property
    def busybox(self) -> str:
        return f"{self.settings.registry}/test/busybox:1"

    @property
    def tools(self) -> str:
        return f"{self.settings.registry}/test/tools:1"

    def start_agent(self, spare_vms: int = 0) -> Record:
        """Start the agent; without VMs that are kept ready, so that tests can count pods' VMs."""
        command = ["vk-provider", "agent", *dev.agent_command(self.settings, self.builds)]
        return spawn(self.settings, "agent", [*command, f"--spare-vms={spare_vms}"])

    def start_node(self) -> Record:
        return spawn(
            self.settings,
            "node",
            ["vk-provider", "node", "--no-taint", *dev.node_command(self.settings)],
        )


@dataclass
class Namespace:
    """A Kubernetes namespace of one test."""

    cluster: Cluster
    name: str

    def kubectl(self, *arguments: str, stdin: str = "", timeout_s: float = 120) -> str:
        return self.cluster.kubectl.run(
            "-n", self.name, *arguments, stdin=stdin, timeout_s=timeout_s
        )

    def json(self, *arguments: str) -> Any:
        return self.cluster.kubectl.json("-n", self.name, *arguments)

    def raw(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run kubectl and return what it did, whatever its exit code."""
        command = [*self.cluster.kubectl.command, "-n", self.name, *arguments]
        return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)

    def pod(
        self, name: str, script: str, *, image: str = "", wait: str = "Ready", **spec: Any
    ) -> None:
        """Make a pod with one container `main` that runs a shell script; wait for a condition."""
        container = {
            "name": "main",
            "image": image or self.cluster.busybox,
            "command": ["sh", "-c", script],
        }
        container |= spec.pop("container", {})
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **spec},
        }
        self.kubectl("create", "-f", "-", stdin=json.dumps(body))
        if wait:
            self.wait(f"pod/{name}", f"condition={wait}")

    def wait(self, what: str, condition: str, timeout_s: int = 90) -> None:
        try:
            self.kubectl("wait", f"--for={condition}", what, f"--timeout={timeout_s}s")
        except SystemExit as error:
            story = self.raw("describe", what).stdout.decode()
            pytest.fail(f"{error}\n{story}")

    def logs(self, *arguments: str) -> str:
        return self.kubectl("logs", *arguments)


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ClusterSettings:
    directory = tmp_path_factory.mktemp("cluster")
    return replace(
        default_settings(),
        directory=directory,
        run_directory=Path("/run/vk-provider/e2e"),
        log_directory=directory / "pods",
    )


@pytest.fixture(scope="session")
def cluster(settings: ClusterSettings) -> Iterator[Cluster]:
    builds = dev.Builds(
        control_plane=Path(os.environ["VK_CONTROL_PLANE"]),
        guest_image=Path(os.environ["VK_GUEST_IMAGE"]),
        test_images=Path(os.environ["VK_TEST_IMAGES"]),
    )
    kubectl = dev.start_control_plane(settings, builds, print)
    started = Cluster(settings, builds, kubectl)
    try:
        dev.start_registry(settings, builds, print)
        started.start_agent()
        started.start_node()
        dev.wait_node_ready(settings, builds, kubectl, ["agent", "node"])
        yield started
    finally:
        dev.take_down(settings, print)
    left = {finding.what: finding.found for finding in look(settings) if finding.found}
    assert not left


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    name = f"test-{next(_numbers)}"
    made = Namespace(cluster, name)
    try:
        cluster.kubectl.run("create", "namespace", name)
        # The controllers make these a moment later; half a minute after an API server's return.
        made.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=110s")
        made.kubectl("wait", "--for=create", "configmap/kube-root-ca.crt", "--timeout=110s")
    except SystemExit as error:  # which would end pytest's own set-up, and every test to come
        pytest.fail(str(error))
    yield made
    # What ran is waited for; the rest is the namespace controller's, which begins seconds later.
    kinds = "deployments,daemonsets,jobs,pods"
    made.kubectl("delete", kinds, "--all", "--cascade=foreground", "--timeout=90s")
    cluster.kubectl.run("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Show the ends of the processes' logs with a failure."""
    report = yield
    cluster = item.funcargs.get("cluster") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(cluster, Cluster):
        for name in ("node", "agent"):
            report.sections.append((f"end of {name}.log", tail(cluster.settings, name, 40)))
    return report
