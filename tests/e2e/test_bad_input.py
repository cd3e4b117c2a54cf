"""Whatever is asked for wrongly is answered in a kubelet's words, and the others go on.

What each row of bad input has below this, in tests/:

image that doesn't exist, unparsable name, registry away or wanting credentials
    integration/images/test_image_store.py, scenarios/test_what_stands_in_the_way.py
command that is not in the image
    contract/test_runtime_contract.py, scenarios/test_restarts.py
missing ConfigMap key, Secret that comes late
    scenarios/test_what_stands_in_the_way.py
hostNetwork, hostPID, devices; a request above the host's; a DaemonSet's pod
    unit/pods/test_admission.py, unit/pods/test_features.py, unit/agent/test_shapes.py
kubeconfig without rights
    unit/node/test_controller.py, unit/cli/test_checks.py
missing tool
    integration/cli/test_bad_hosts.py, unit/agent/test_tools.py

port in use
    unit/kubelet_api/test_ports.py

And what is tested there alone:

wrong flag
    unit/cli/test_command_line.py
state file cut short
    integration/cli/test_bad_hosts.py, unit/agent/test_store.py
full disk
    e2e/test_full_disk.py, integration/agent/test_full_disk.py, integration/cli/test_bad_hosts.py,
    integration/images/test_image_store.py, integration/logs/test_full_disk.py,
    unit/agent/test_full_disk.py
"""

from __future__ import annotations

import functools
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cluster, Namespace
from tests.support.closed_registry import closed_registry
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

CLOSED_PORT = 5021
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 1; done"


@pytest.fixture
def bystander(namespace: Namespace) -> Iterator[None]:
    """A pod that counts; whatever the test does, it has counted on."""
    namespace.pod("bystander", COUNT)
    yield
    before = len(namespace.logs("bystander").splitlines())
    until(lambda: len(namespace.logs("bystander").splitlines()) > before)
    lines = namespace.logs("bystander").splitlines()
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
    assert _containers(namespace, "bystander")["main"]["restartCount"] == 0


class TestWaiting:
    """What a container waits for is said, and it starts when that comes."""

    def test_images_commands_and_configuration(
        self, cluster: Cluster, namespace: Namespace, bystander: None, tmp_path: Path
    ) -> None:
        storage = cluster.settings.directory / "registry"
        with closed_registry(tmp_path, storage, CLOSED_PORT) as closed, _plain_http(cluster):
            namespace.kubectl("create", "configmap", "settings", "--from-literal=colour=green")
            images = {
                "unknown": f"{cluster.settings.registry}/test/nothing:1",
                "misnamed": "Not-A/Name:at:all",
                "away": "127.0.0.1:5022/test/busybox:1",
                "closed": closed.image("test/busybox:1"),
            }
            key = {"name": "settings", "key": "size"}
            word = {"name": "late", "key": "word"}
            _make(
                namespace,
                _pod("images", *(_container(name, image) for name, image in images.items())),
                _pod(
                    "settings",
                    _container("nokey", cluster.busybox, env=_from(configMapKeyRef=key)),
                    _container("late", cluster.busybox, env=_from(secretKeyRef=word)),
                    _container("fine", cluster.busybox),
                ),
                _pod(
                    "typo",
                    _container("main", cluster.busybox, ["serve-web"]),
                    restartPolicy="Never",
                ),
                _pod(
                    "volume",
                    _container(
                        "main",
                        cluster.busybox,
                        ["sh", "-c", "cat /v/word; echo; sleep 100000"],
                        volumeMounts=[{"name": "v", "mountPath": "/v"}],
                    ),
                    volumes=[{"name": "v", "secret": {"secretName": "late"}}],
                ),
            )
            self.check_images(namespace)
            self.check_the_typo(namespace)
            self.check_configuration(namespace)

    def check_images(self, namespace: Namespace) -> None:
        words = {
            "unknown": "manifest unknown|name unknown",
            "away": "connection refused",
            "closed": "authentication required|unauthorized",
        }
        for name, said in words.items():
            _until_waiting(namespace, "images", name, "ImagePullBackOff", said)
        _until_waiting(
            namespace, "images", "misnamed", "InvalidImageName", "invalid reference format"
        )
        events = _events(namespace, "images")
        assert {"Pulling", "Failed", "BackOff", "InspectFailed"} <= {e["reason"] for e in events}
        failed = [e["message"] for e in events if e["reason"] == "Failed"]
        assert any(
            m.startswith("Failed to pull image") and "connection refused" in m for m in failed
        )
        assert "Error: ErrImagePull" in failed
        assert namespace.json("get", "pod", "images")["status"]["phase"] == "Pending"

    def check_the_typo(self, namespace: Namespace) -> None:
        namespace.wait("pod/typo", "jsonpath={.status.phase}=Failed")
        ended = _containers(namespace, "typo")["main"]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
        assert re.search('"serve-web": executable file not found in \\$PATH', ended["message"])
        failed = [e["message"] for e in _events(namespace, "typo") if e["reason"] == "Failed"]
        assert any(m.startswith("Error: ") and "serve-web" in m for m in failed)

    def check_configuration(self, namespace: Namespace) -> None:
        reason = "CreateContainerConfigError"
        said = f"couldn't find key size in ConfigMap {namespace.name}/settings"
        _until_waiting(namespace, "settings", "nokey", reason, said)
        _until_waiting(namespace, "settings", "late", reason, 'secret "late" not found')
        assert "running" in _containers(namespace, "settings")["fine"]["state"]
        mounts = [e for e in _events(namespace, "volume") if e["reason"] == "FailedMount"]
        assert 'MountVolume.SetUp failed for volume "v" : secret "late" not found' in {
            e["message"] for e in mounts
        }
        _until_waiting(namespace, "volume", "main", "ContainerCreating", "")
        namespace.kubectl("create", "secret", "generic", "late", "--from-literal=word=here")
        namespace.kubectl("patch", "configmap", "settings", "--patch", '{"data":{"size":"8"}}')
        namespace.wait("pod/settings", "condition=Ready")
        namespace.wait("pod/volume", "condition=Ready")
        until(lambda: namespace.logs("volume") == "here\n")
        restarts = {c["restartCount"] for c in _containers(namespace, "settings").values()}
        assert restarts == {0}


class TestRefused:
    """What a microVM, or this host, can't honour ends as Failed with the reason, and at once."""

    def test_each_with_its_reason(
        self, cluster: Cluster, namespace: Namespace, bystander: None
    ) -> None:
        node, busybox = cluster.settings.node_name, cluster.busybox
        device: dict[str, Any] = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
        huge: dict[str, Any] = {"resources": {"requests": {"memory": "64Ti"}}}
        path = [{"name": "d", "hostPath": {"path": "/dev/kvm", "type": "CharDevice"}}]
        main = _container("main", busybox)
        bound: dict[str, Any] = {"nodeName": node}
        _make(
            namespace,
            _pod("network", main, hostNetwork=True),
            _pod("processes", main, hostPID=True),
            _pod("path", main, volumes=path),
            # The scheduler would keep these away; whoever names the node gets past it.
            _pod("device", _container("main", busybox, **device), **bound),
            _pod("huge", _container("main", busybox, **huge), **bound),
            _pod("elsewhere", main, nodeSelector={"disk": "ssd"}, **bound),
            _pod("unscheduled", _container("main", busybox, **huge)),
            _pod("oversized", main, annotations={"vk-provider.dev/size": "512x4Ti"}),
        )
        for pod, reason, said in (
            ("network", "PodFeatureUnsupported", "hostNetwork"),
            ("processes", "PodFeatureUnsupported", "hostPID"),
            ("path", "PodFeatureUnsupported", "hostPath"),
            ("device", "PodFeatureUnsupported", "nvidia.com/gpu"),
            ("huge", "OutOfmemory", "Node didn't have enough resource: memory"),
            ("elsewhere", "NodeAffinity", "didn't match Pod's node affinity"),
        ):
            namespace.wait(f"pod/{pod}", "jsonpath={.status.phase}=Failed", timeout_s=30)
            status = namespace.json("get", "pod", pod)["status"]
            assert status["reason"] == reason
            assert status["message"].startswith("Pod was rejected: ")
            assert said in status["message"]
            until(functools.partial(_has_event, namespace, pod, reason))
        said = "no VM size of this host is large enough"
        until(lambda: said in _messages(namespace, "oversized", "FailedCreatePodSandBox"))
        until(lambda: _has_event(namespace, "unscheduled", "FailedScheduling"))

    def test_a_daemon_sets_pods(
        self, cluster: Cluster, namespace: Namespace, bystander: None
    ) -> None:
        template = {
            "metadata": {"labels": {"app": "agent"}},
            "spec": {
                "hostNetwork": True,
                "tolerations": [{"operator": "Exists"}],
                "containers": [_container("main", cluster.busybox)],
            },
        }
        body = {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "agent"},
            "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": template},
        }
        namespace.kubectl("create", "-f", "-", stdin=json.dumps(body))

        def hints() -> list[str]:
            # Its controller removes failed pods and makes others: only their events stay.
            events = namespace.json("get", "events")["items"]
            return [e["message"] for e in events if e["reason"] == "PodFeatureUnsupported"]

        until(lambda: bool(hints()))
        assert "hostNetwork" in hints()[0]
        assert "The DaemonSet agent belongs on machines" in hints()[0]
        term = {"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [term]}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
        patch = {"spec": {"template": {"spec": {"affinity": affinity}}}}
        namespace.kubectl("patch", "daemonset", "agent", "--patch", json.dumps(patch))
        until(lambda: namespace.json("get", "pods", "-l", "app=agent")["items"] == [])
        status = namespace.json("get", "daemonset", "agent")["status"]
        assert status["desiredNumberScheduled"] == 0


def test_a_missing_tool(cluster: Cluster, namespace: Namespace, bystander: None) -> None:
    with _hidden(Path("/usr/bin/skopeo")):
        namespace.pod(
            "puller", "exec sleep 100000", container={"imagePullPolicy": "Always"}, wait=""
        )
        _until_waiting(
            namespace, "puller", "main", "ErrImagePull|ImagePullBackOff", "skopeo is not installed"
        )
    namespace.wait("pod/puller", "condition=Ready")


def test_a_kubeconfig_without_rights_and_a_port_in_use(
    cluster: Cluster, namespace: Namespace, bystander: None, tmp_path: Path
) -> None:
    """As a kubelet does, the node says what it may not, and tries on; it disturbs nobody."""
    kubeconfig = _kubeconfig_without_rights(cluster, namespace, tmp_path)
    findings = _doctor(cluster, kubeconfig, code=1)
    assert findings["rights there"]["verdict"] == "failed"
    for right in ("create nodes", "get secrets", "create serviceaccounts/token"):
        assert right in findings["rights there"]["found"]
    assert findings["identity"]["found"] == f"system:serviceaccount:{namespace.name}:powerless"
    findings = _doctor(cluster, cluster.settings.directory / "node/pki/kubeconfig", code=0)
    assert findings["rights there"]["verdict"] == "ok"

    words = tmp_path / "node.log"
    command = ["vk-provider", "node", "--node-name=impostor", f"--kubeconfig={kubeconfig}"]
    command += [f"--state-dir={tmp_path}/node", f"--agent-socket={cluster.settings.agent_socket}"]
    command += [f"--listen-address={cluster.settings.api_address}", "--healthz-port=0"]
    command += [f"--node-ip={cluster.settings.api_address}", "--cluster-dns=10.96.0.10"]
    with (
        words.open("wb") as log,
        subprocess.Popen([*command, "--port=10350"], stderr=log) as node,
    ):
        try:
            until(lambda: "nodes is forbidden" in words.read_text(), within_s=30)
            assert node.poll() is None, words.read_text()
        finally:
            node.send_signal(signal.SIGTERM)
    assert node.returncode == 0, words.read_text()
    assert "cannot create resource" in words.read_text()
    assert f"system:serviceaccount:{namespace.name}:powerless" in words.read_text()
    assert "Traceback" not in words.read_text()

    port = cluster.settings.api_port
    in_use = subprocess.run(
        [*command, f"--port={port}"], capture_output=True, text=True, check=False, timeout=60
    )
    assert in_use.returncode == 1
    last = in_use.stderr.splitlines()[-1]
    assert last.startswith("vk-provider: ")
    assert f"can't listen on {cluster.settings.api_address}:{port}: " in last
    names = {n["metadata"]["name"] for n in cluster.kubectl.json("get", "nodes")["items"]}
    assert names == {cluster.settings.node_name}


def _doctor(cluster: Cluster, kubeconfig: Path, code: int) -> dict[str, dict[str, str]]:
    """Return what doctor finds of a cluster for the node's name, by what it looked at."""
    command = ["vk-provider", "doctor", "--json", f"--kubeconfig={kubeconfig}"]
    command += [f"--node-name={cluster.settings.node_name}"]
    command += [f"--agent-socket={cluster.settings.agent_socket}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return {finding["what"]: finding for finding in json.loads(done.stdout)}


def _kubeconfig_without_rights(cluster: Cluster, namespace: Namespace, folder: Path) -> Path:
    namespace.kubectl("create", "serviceaccount", "powerless")
    token = namespace.kubectl("create", "token", "powerless").strip()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": cluster.settings.api_url,
                    "certificate-authority": str(cluster.settings.pki / "ca.crt"),
                },
            }
        ],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


@contextmanager
def _plain_http(cluster: Cluster) -> Iterator[None]:
    """Let the registries of this test be spoken to without TLS."""
    path = cluster.settings.directory / "registries.conf"
    before = path.read_text()
    extra = (f'[[registry]]\nlocation = "127.0.0.1:{p}"\ninsecure = true\n' for p in (5021, 5022))
    path.write_text(before + "".join(extra))
    try:
        yield
    finally:
        path.write_text(before)


@contextmanager
def _hidden(program: Path) -> Iterator[None]:
    """Make a program unusable for everybody in this run's mount namespace."""
    subprocess.run(["mount", "--bind", "/dev/null", str(program)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(program)], check=True)


def _pod(
    name: str,
    *containers: dict[str, Any],
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec},
    }


def _container(
    name: str, image: str, command: list[str] | None = None, **fields: Any
) -> dict[str, Any]:
    command = command or ["sleep", "100000"]
    return {"name": name, "image": image, "command": command, **fields}


def _from(**source: Any) -> list[dict[str, Any]]:
    return [{"name": "WORD", "valueFrom": source}]


def _make(namespace: Namespace, *pods: dict[str, Any]) -> None:
    body = {"apiVersion": "v1", "kind": "List", "items": list(pods)}
    namespace.kubectl("create", "-f", "-", stdin=json.dumps(body))


def _containers(namespace: Namespace, pod: str) -> dict[str, dict[str, Any]]:
    status = namespace.json("get", "pod", pod)["status"]
    return {c["name"]: c for c in status.get("containerStatuses", ())}


def _events(namespace: Namespace, pod: str) -> list[dict[str, Any]]:
    selector = f"--field-selector=involvedObject.name={pod}"
    events: list[dict[str, Any]] = namespace.json("get", "events", selector)["items"]
    return events


def _messages(namespace: Namespace, pod: str, reason: str) -> str:
    return "\n".join(e["message"] for e in _events(namespace, pod) if e["reason"] == reason)


def _has_event(namespace: Namespace, pod: str, reason: str) -> bool:
    return reason in {e["reason"] for e in _events(namespace, pod)}


def _until_waiting(
    namespace: Namespace, pod: str, container: str, reason: str, message: str
) -> None:
    """Return when the container waits for that reason, with words that match."""
    seen: dict[str, str] = {}

    def waits() -> bool:
        shown = _containers(namespace, pod).get(container, {})
        seen.update(shown.get("state", {}).get("waiting") or {"reason": str(shown)})
        return bool(
            re.fullmatch(reason, seen["reason"]) and re.search(message, seen.get("message", ""))
        )

    until(waits, lambda: f"{pod}/{container}: {seen}")
