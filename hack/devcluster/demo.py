"""The main job, shown: a Deployment of two pods, each in a microVM of its own, and their logs."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hack.devcluster.settings import ClusterSettings

NAME = "hello"


class Kubectl:
    """kubectl against one cluster; errors end the command with kubectl's own words."""

    def __init__(self, binary: Path, kubeconfig: Path) -> None:
        self.binary = binary
        self.kubeconfig = kubeconfig
        self.command = [str(binary), f"--kubeconfig={kubeconfig}"]

    def run(self, *arguments: str, stdin: str = "", timeout_s: float = 300) -> str:
        done = subprocess.run(
            [*self.command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(
                f"kubectl {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()}"
            )
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json"))


def run(kubectl: Kubectl, settings: ClusterSettings, image: str) -> list[str]:
    """Make the Deployment, wait until both pods are ready, and return a line of log for each."""
    kubectl.run("apply", "-f", "-", stdin=json.dumps(_deployment(settings, image)))
    kubectl.run("rollout", "status", f"deployment/{NAME}", "--timeout=240s")
    pods = kubectl.json("get", "pods", "-l", f"app={NAME}")["items"]
    lines = []
    for pod in pods:
        name = pod["metadata"]["name"]
        kubectl.run("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
        line = _first_line(kubectl, name)
        _check_kernel(name, line)
        lines.append(f"{name}: {line}")
    return lines


def _first_line(kubectl: Kubectl, pod: str) -> str:
    """Follow the log until its first line is there: a pod is Ready before it has said a word."""
    command = [*kubectl.command, "logs", "--follow", "--pod-running-timeout=60s", pod]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as follower,
    ):
        assert follower.stdout is not None
        line = follower.stdout.readline().strip()
        follower.terminate()
        if not line:
            follower.wait()
            errors.seek(0)
            words = errors.read().strip() or "it ended without a word"
            raise SystemExit(f"kubectl logs showed nothing of pod {pod}: {words}")
    return line


def _check_kernel(pod: str, line: str) -> None:
    """Raise SystemExit unless the line tells of a kernel that is not this host's."""
    kernel = line.rpartition(" ")[2]
    if not line.startswith(f"Hello from {pod}, ") or kernel == os.uname().release:
        raise SystemExit(f"pod {pod} does not show that it runs in a microVM; its log: {line}")


def _deployment(settings: ClusterSettings, image: str) -> dict[str, Any]:
    script = (
        'echo "Hello from $(hostname), a microVM with kernel $(uname -r)"; exec sleep 1000000000'
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": "default"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": settings.node_name},
                    "tolerations": [{"key": "vk-provider.dev/virtual-node", "operator": "Exists"}],
                    "terminationGracePeriodSeconds": 1,
                    "containers": [
                        {
                            "name": NAME,
                            "image": image,
                            "command": ["sh", "-c", script],
                            "resources": {
                                "requests": {"cpu": "100m", "memory": "64Mi"},
                                "limits": {"cpu": "250m", "memory": "128Mi"},
                            },
                        }
                    ],
                },
            },
        },
    }
