"""Conditions after kubelet status/generate.go."""

from __future__ import annotations

from typing import Any

from tests.support.pod_states import ENDED, NOW_NS, sandbox, state
from tests.support.pod_world import container, pod
from vk_provider.pods.pod_state import PodState
from vk_provider.pods.status.conditions import make_conditions
from vk_provider.pods.status.times import to_api

READY = {"state": {"running": {}}, "ready": True, "started": True}
UNREADY = {"state": {"running": {}}, "ready": False, "started": True}


def _made(
    spec: Any,
    statuses: dict[str, Any],
    old: Any = (),
    phase: str = "Running",
    observed: PodState | None = None,
) -> dict[str, Any]:
    where = observed if observed is not None else state(sandbox())
    made = make_conditions(spec, old, statuses, phase, where, NOW_NS)
    return {c["type"]: c for c in made}


def test_unready_containers_are_named() -> None:
    spec = pod("web", container("a"), container("b"), container("c"))
    made = _made(spec, {"a": READY, "b": UNREADY})
    for type_ in ("Ready", "ContainersReady"):
        assert made[type_]["status"] == "False"
        assert made[type_]["reason"] == "ContainersNotReady"
        assert made[type_]["message"] == (
            "containers with unknown status: [c], containers with unready status: [b]"
        )


def test_a_transition_has_its_time_and_what_does_not_change_keeps_it() -> None:
    first = _made(pod(), {"app": UNREADY})
    earlier = [{**c, "lastTransitionTime": "2020-01-01T00:00:00Z"} for c in first.values()]
    made = _made(pod(), {"app": READY}, earlier)
    assert made["Ready"]["lastTransitionTime"] == to_api(NOW_NS)
    assert made["PodScheduled"]["lastTransitionTime"] == "2020-01-01T00:00:00Z"


def test_the_generation_is_told() -> None:
    spec = pod()
    spec["metadata"]["generation"] = 4
    made = _made(spec, {"app": READY})
    assert {c["observedGeneration"] for c in made.values()} == {4}


def test_the_end_has_reasons_of_its_own() -> None:
    ended = {"app": {"state": {"terminated": {"exitCode": 0}}, "ready": False}}
    done = _made(pod(), ended, phase="Succeeded")
    assert (done["Ready"]["reason"], done["Initialized"]["reason"]) == ("PodCompleted",) * 2
    failed = _made(pod(), ended, phase="Failed")
    assert failed["ContainersReady"]["reason"] == "PodFailed"


def test_incomplete_init_containers_are_named() -> None:
    spec = pod("web", container("a"), initContainers=[container("i"), container("j")])
    waiting = {"state": {"waiting": {}}, "ready": False}
    made = _made(spec, {"a": waiting, "i": waiting}, phase="Pending")
    assert made["Initialized"]["reason"] == "ContainersNotInitialized"
    assert made["Initialized"]["message"] == (
        "containers with unknown status: [j], containers with incomplete status: [i]"
    )


def test_the_sandbox_is_told_of_before_the_images_come() -> None:
    missing = _made(pod(), {}, phase="Pending", observed=state())
    assert missing["PodReadyToStartContainers"]["message"] == "no pod sandbox exists"
    dead = _made(pod(), {}, observed=state(sandbox(state=ENDED)))
    assert dead["PodReadyToStartContainers"]["message"] == "pod sandbox is not ready"
    there = _made(pod(), {}, phase="Pending")
    assert there["PodReadyToStartContainers"]["status"] == "True"


def test_others_conditions_pass_through() -> None:
    theirs = {"type": "example.test/x", "status": "False", "lastProbeTime": None}
    assert _made(pod(), {"app": READY}, [theirs])["example.test/x"] == theirs
