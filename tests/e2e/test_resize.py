"""`kubectl patch --subresource resize`: a running pod's containers get other limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Namespace
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

MI = 1024 * 1024
SMALL = {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "96Mi"}}
LARGE = {
    "requests": {"cpu": "100m", "memory": "64Mi"},
    "limits": {"cpu": "200m", "memory": "128Mi"},
}
LESS = {
    "requests": {"cpu": "100m", "memory": "32Mi"},
    "limits": {"cpu": "200m", "memory": "48Mi"},
}
TOO_MUCH = {**LARGE, "limits": {**LARGE["limits"], "memory": "100Gi"}}
USE = "dd if=/dev/zero of=/dev/shm/x bs=1M count=60"


def ask(namespace: Namespace, resources: dict[str, Any]) -> None:
    patch = {"spec": {"containers": [{"name": "main", "resources": resources}]}}
    namespace.kubectl("patch", "pod", "web", "--subresource=resize", "-p", json.dumps(patch))


def main(namespace: Namespace) -> dict[str, Any]:
    found: dict[str, Any] = namespace.json("get", "pod", "web")["status"]["containerStatuses"][0]
    return found


def resize_condition(namespace: Namespace) -> tuple[str, str, str]:
    """Return type, reason and message of the resize's condition, empty where there is none."""
    for found in namespace.json("get", "pod", "web")["status"]["conditions"]:
        if found["type"].startswith("PodResize"):
            return found["type"], found.get("reason", ""), found.get("message", "")
    return "", "", ""


def limits(namespace: Namespace) -> list[str]:
    """Return what the container's own control group says."""
    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"
    return namespace.kubectl("exec", "web", "--", "sh", "-c", f"cat {files}").split("\n")[:2]


def settled(namespace: Namespace, resources: dict[str, Any]) -> bool:
    return main(namespace)["resources"] == resources and not any(resize_condition(namespace))


def test_a_running_pod_is_resized_or_told_why_not(namespace: Namespace) -> None:
    namespace.pod("web", "exec sleep 100000", container={"resources": SMALL})
    before = main(namespace)
    assert limits(namespace) == [str(96 * MI), "10000 100000"]

    ask(namespace, LARGE)
    until(lambda: settled(namespace, LARGE))
    assert limits(namespace) == [str(128 * MI), "20000 100000"]
    assert main(namespace)["allocatedResources"] == LARGE["requests"]

    # More than its VM has: the pod goes on with what it has, and says so.
    ask(namespace, TOO_MUCH)
    until(lambda: resize_condition(namespace)[:2] == ("PodResizePending", "Infeasible"))
    assert "the pod's VM has" in resize_condition(namespace)[2]
    assert main(namespace)["resources"] == LARGE
    ask(namespace, LARGE)
    until(lambda: settled(namespace, LARGE))

    # Less than it uses: not before it uses less.
    namespace.kubectl("exec", "web", "--", "sh", "-c", USE)
    ask(namespace, LESS)
    until(lambda: resize_condition(namespace)[:2] == ("PodResizeInProgress", "Error"))
    assert "below current usage" in resize_condition(namespace)[2]
    assert limits(namespace)[0] == str(128 * MI)
    namespace.kubectl("exec", "web", "--", "rm", "/dev/shm/x")
    until(lambda: settled(namespace, LESS))
    assert limits(namespace)[0] == str(48 * MI)

    after = main(namespace)
    assert after["restartCount"] == 0
    assert after["containerID"] == before["containerID"]
    told = namespace.kubectl("describe", "pod", "web")
    for reason in ("ResizeStarted", "ResizeCompleted", "ResizeInfeasible", "ResizeError"):
        assert reason in told
