"""The disk of all that the agent keeps is full to the last block: pods say so, wait, and go on.

What becomes of templates, images and clocks meanwhile is in integration/agent/test_full_disk.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hack.devcluster.processes import running, stop
from tests.e2e.conftest import Cluster, Namespace
from tests.support.small_disk import fill, loop_disk, make_room
from tests.support.waiting import listens, until

pytestmark = pytest.mark.e2e

DISK_MIB = 1600
# The node tells of the pressure, and the scheduler would keep new pods away.
ANYWAY = [{"operator": "Exists"}]
COUNT = "i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done"
WRITE = (
    "until [ -e /go ]; do usleep 100000; done; "
    "dd if=/dev/zero of=/big bs=1M count=200 2>/dev/null; sync; echo written; exec sleep 100000"
)
SMALL = {"resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}


@pytest.fixture
def disk(cluster: Cluster, namespace: Namespace, tmp_path: Path) -> Iterator[Path]:
    """Have a new agent keep all that it keeps, logs too, on a small disk."""
    places = {"state": cluster.settings.directory / "agent", "pods": cluster.settings.log_directory}
    stop_agent(cluster)
    with loop_disk(tmp_path, DISK_MIB, *places) as mounted, ExitStack() as stack:
        for name, place in places.items():
            place.mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", tmp_path / name, place], check=True)
            stack.callback(unmount, place)
        cluster.start_agent()
        yield mounted
        (mounted / "ballast").unlink(missing_ok=True)
        namespace.kubectl("delete", "pods", "--all", "--timeout=90s")
        stop_agent(cluster)
    cluster.start_agent()
    until(lambda: listens(cluster.settings.agent_socket))  # the tests to come take it for granted


def unmount(place: Path) -> None:
    subprocess.run(["umount", place], check=True)


def stop_agent(cluster: Cluster) -> None:
    agent = running(cluster.settings, "agent")
    assert agent is not None
    stop(cluster.settings, agent)


@pytest.mark.timeout(300)
def test_a_disk_that_is_filled_to_the_brim(
    cluster: Cluster, namespace: Namespace, disk: Path
) -> None:
    templates = disk / "state" / "hypervisor" / "templates"

    # While a template is made: the pod that comes then waits, and says for what.
    until(templates.is_dir)
    fill(disk)
    namespace.pod("early", COUNT, wait="", container=SMALL, tolerations=ANYWAY)
    until(lambda: no_room(namespace, "early", "FailedCreatePodSandBox"))
    make_room(disk)
    namespace.wait("pod/early", "condition=Ready")
    until(lambda: started(namespace, "early"))

    # While an image is to be pulled.
    fill(disk)
    always = {**SMALL, "imagePullPolicy": "Always"}
    namespace.pod(
        "large", COUNT, image=cluster.tools, wait="", container=always, tolerations=ANYWAY
    )
    until(lambda: no_room(namespace, "large", ""))
    assert status(namespace, "large")["phase"] == "Pending"
    make_room(disk)
    namespace.wait("pod/large", "condition=Ready")
    until(lambda: "from a template" in started(namespace, "large"))

    # While logs and disks are written.
    namespace.pod("writer", WRITE, container=SMALL)
    # What its start has written must be on the disk, or writing it back would hold the VM.
    namespace.kubectl("exec", "early", "--", "sync")
    fill(disk)
    until(lambda: no_room(namespace, "early", "LogWriteFailed"))
    namespace.kubectl("exec", "writer", "--", "touch", "/go")
    until(lambda: told_once(namespace, "writer", "VMPaused"))
    assert not told_once(namespace, "early", "LogWriteResumed")
    make_room(disk)
    until(lambda: told_once(namespace, "early", "LogWriteResumed"))
    until(lambda: told_once(namespace, "writer", "VMResumed"))
    until(lambda: namespace.logs("writer") == "written\n")

    numbers = [int(line) for line in namespace.logs("early").splitlines()]
    assert numbers == list(range(len(numbers)))
    for pod in ("early", "large", "writer"):
        assert status(namespace, pod)["containerStatuses"][0]["restartCount"] == 0


def no_room(namespace: Namespace, pod: str, reason: str) -> bool:
    """Say whether an event of the pod tells that there is no room, with that reason if any."""
    return any(
        told.startswith(reason) and ("No space left" in told or "make room" in told)
        for told in said(namespace, pod)
    )


def started(namespace: Namespace, pod: str) -> str:
    """Return how the pod's VM was started, in the event's words."""
    return next((told for told in said(namespace, pod) if told.startswith("SandboxStarted")), "")


def told_once(namespace: Namespace, pod: str, reason: str) -> bool:
    """Say whether the pod has such an event; fails where it came twice."""
    selector = f"--field-selector=involvedObject.name={pod},reason={reason}"
    events = namespace.json("get", "events", selector)["items"]
    assert sum(event.get("count", 1) for event in events) <= 1, events
    return bool(events)


def status(namespace: Namespace, pod: str) -> dict[str, Any]:
    found: dict[str, Any] = namespace.json("get", "pod", pod)["status"]
    return found


def said(namespace: Namespace, pod: str) -> list[str]:
    """Return the pod's events, a line each."""
    selector = f"--field-selector=involvedObject.name={pod}"
    events = namespace.json("get", "events", selector)["items"]
    return [f"{event['reason']}: {event['message']}" for event in events]
