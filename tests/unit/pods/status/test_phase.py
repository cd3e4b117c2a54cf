"""Phases after kubelet's getPhase."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.pod_world import container, pod
from vk_provider.pods.status.phase import get_phase

RUNNING: dict[str, Any] = {"state": {"running": {}}}
OK: dict[str, Any] = {"state": {"terminated": {"exitCode": 0}}}
BAD: dict[str, Any] = {"state": {"terminated": {"exitCode": 1}}}
WAITING: dict[str, Any] = {"state": {"waiting": {}}, "lastState": {}}
CRASHED: dict[str, Any] = {"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 1}}}


@pytest.mark.parametrize(
    ("policy", "first", "second", "phase"),
    [
        ("Always", RUNNING, RUNNING, "Running"),
        ("Always", OK, OK, "Running"),
        ("Always", BAD, RUNNING, "Running"),
        ("Always", WAITING, RUNNING, "Pending"),
        ("Always", None, RUNNING, "Pending"),
        ("Always", CRASHED, CRASHED, "Running"),
        ("Never", OK, OK, "Succeeded"),
        ("Never", OK, BAD, "Failed"),
        ("Never", OK, RUNNING, "Running"),
        ("OnFailure", OK, OK, "Succeeded"),
        ("OnFailure", OK, BAD, "Running"),
        ("OnFailure", OK, CRASHED, "Running"),
        ("Never", None, None, "Pending"),
    ],
)
def test_app_containers(policy: str, first: Any, second: Any, phase: str) -> None:
    spec = pod("web", container("a"), container("b"), restartPolicy=policy)
    known = [{"name": n, **s} for n, s in (("a", first), ("b", second)) if s]
    assert get_phase(spec, known, terminated=False, initialized=True) == phase


def test_a_pod_that_is_not_started_again_is_over_whatever_the_policy() -> None:
    ended = [{"name": "app", **OK}]
    assert get_phase(pod(), ended, terminated=True, initialized=True) == "Succeeded"
    assert get_phase(pod(), [{"name": "app", **BAD}], terminated=True, initialized=True) == "Failed"


@pytest.mark.parametrize(
    ("policy", "init", "phase"),
    [
        ("Always", None, "Pending"),
        ("Always", RUNNING, "Pending"),
        ("Always", OK, "Running"),
        ("Never", BAD, "Failed"),
        ("Always", WAITING, "Pending"),
    ],
)
def test_init_containers(policy: str, init: Any, phase: str) -> None:
    spec = pod("web", container("a"), initContainers=[container("i")], restartPolicy=policy)
    known = [{"name": "a", **RUNNING}] + ([{"name": "i", **init}] if init else [])
    assert get_phase(spec, known, terminated=False, initialized=False) == phase


def test_a_sidecars_restart_does_not_set_a_pod_back() -> None:
    spec = pod("web", container("a"), initContainers=[container("s", restartPolicy="Always")])
    side = {"name": "s", "started": False, **RUNNING}
    known = [{"name": "a", **RUNNING}, side]
    assert get_phase(spec, known, terminated=False, initialized=True) == "Running"
    assert get_phase(spec, known, terminated=False, initialized=False) == "Pending"


def test_a_sidecar_does_not_count_once_it_has_ended() -> None:
    spec = pod(
        "web",
        container("a"),
        initContainers=[container("s", restartPolicy="Always")],
        restartPolicy="Never",
    )
    known = [{"name": "a", **OK}, {"name": "s", **BAD}]
    assert get_phase(spec, known, terminated=True, initialized=True) == "Succeeded"
