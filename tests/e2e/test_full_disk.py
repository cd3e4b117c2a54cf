"""The agent's disk is full: new pods say what they wait for, and start when there is room.

How running pods fare, and what fills the disk, is in integration/agent/test_full_disk.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cluster, Namespace
from tests.support.waiting import until

pytestmark = pytest.mark.e2e


@contextmanager
def no_room(folder: Path) -> Iterator[None]:
    """Have no file fit into a folder of the agent's, nor another folder."""
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", "size=4k,nr_inodes=1", "tmpfs"]
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def little_room(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """Have no more than that fit into a folder; yields what gives it another size."""
    options = ["-t", "tmpfs", "-o", f"mode=0755,size={size}", "tmpfs"]
    subprocess.run(["mount", *options, str(folder)], check=True)

    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_pods_wait_for_room_and_say_so(cluster: Cluster, namespace: Namespace) -> None:
    agent = cluster.settings.directory / "agent"
    namespace.pod("before", "exec sleep 100000")
    with no_room(agent / "sandboxes"):
        namespace.pod("late", "exec sleep 100000", wait="")
        until(lambda: "No space left on device" in said(namespace, "late"))
        assert "FailedCreatePodSandBox" in said(namespace, "late")
    namespace.wait("pod/late", "condition=Ready")

    until(lambda: not_here(cluster, cluster.tools))
    with no_room(agent / "images" / "work"):
        always = {"imagePullPolicy": "Always"}
        namespace.pod("large", "exec sleep 100000", image=cluster.tools, container=always, wait="")
        until(lambda: "No space left on device" in said(namespace, "large"))
        assert f'Failed: Failed to pull image "{cluster.tools}"' in said(namespace, "large")
        until(lambda: waits_for(namespace, "large") in {"ErrImagePull", "ImagePullBackOff"})
        assert status(namespace, "large")["phase"] == "Pending"
    namespace.wait("pod/large", "condition=Ready")
    for pod in ("before", "late", "large"):
        assert status(namespace, pod)["containerStatuses"][0]["restartCount"] == 0


def test_logs_and_disks_wait_for_room_and_say_so(cluster: Cluster, namespace: Namespace) -> None:
    count = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; exec sleep 100000"
    with little_room(cluster.settings.log_directory, "64k") as make_room:
        namespace.pod("talker", count)
        until(
            lambda: (
                "LogWriteFailed: The output of container main waits" in said(namespace, "talker")
            )
        )
        assert "No space left on device" in said(namespace, "talker")
        make_room("64m")
        until(lambda: "LogWriteResumed" in said(namespace, "talker"))
        numbers = [str(number) for number in range(20000)]
        until(lambda: namespace.logs("talker").splitlines() == numbers)
        namespace.kubectl("delete", "pod", "talker")

    write = "dd if=/dev/zero of=/big bs=1M count=100; sync; echo written; exec sleep 100000"
    with little_room(cluster.settings.directory / "agent" / "sandboxes", "64m") as make_room:
        namespace.pod("writer", write)
        until(lambda: "VMPaused: The pod's VM stands still" in said(namespace, "writer"))
        make_room("256m")
        until(lambda: "VMResumed" in said(namespace, "writer"))
        until(lambda: "written" in namespace.logs("writer"))
        assert status(namespace, "writer")["containerStatuses"][0]["restartCount"] == 0
        namespace.kubectl("delete", "pod", "writer")


def not_here(cluster: Cluster, image: str) -> bool:
    """Remove an image that an earlier test's pod may have pulled; say whether it is gone."""
    command = [sys.executable, "-m", "vk_provider.cli", "images"]
    socket = f"--agent-socket={cluster.settings.agent_socket}"
    subprocess.run([*command, "remove", image, socket], check=False)
    listed = subprocess.check_output([*command, "list", "--json", socket])
    return all(image not in held["tags"] for held in json.loads(listed))


def status(namespace: Namespace, pod: str) -> dict[str, Any]:
    found: dict[str, Any] = namespace.json("get", "pod", pod)["status"]
    return found


def waits_for(namespace: Namespace, pod: str) -> str:
    """Return the reason for which the pod's container waits."""
    state = status(namespace, pod)["containerStatuses"][0]["state"]
    return str(state.get("waiting", {}).get("reason"))


def said(namespace: Namespace, pod: str) -> str:
    """Return the pod's events, a line each."""
    selector = f"--field-selector=involvedObject.name={pod}"
    events = namespace.json("get", "events", selector)["items"]
    return "\n".join(f"{event['reason']}: {event['message']}" for event in events)
