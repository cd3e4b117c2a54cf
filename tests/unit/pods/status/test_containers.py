"""Container statuses after kubelet convertToAPIContainerStatuses."""

from __future__ import annotations

from typing import Any

from tests.support.pod_states import ENDED, run, sandbox, state
from tests.support.pod_world import container, pod
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.actions import ProbeResults
from vk_provider.pods.podspec import Pod, app_containers, init_containers
from vk_provider.pods.status.containers import Facts, Waiting, make_container_statuses


def _made(facts: Facts, old: Any = (), kind: Any = "app") -> list[dict[str, Any]]:
    containers = init_containers(facts.pod) if kind == "init" else app_containers(facts.pod)
    return make_container_statuses(facts, containers, old, kind)


def test_the_last_run_is_told_beside_the_present_one() -> None:
    runs = state(sandbox(run("app", 0, exit_code=3), run("app", 1)))
    (status,) = _made(Facts(pod(), runs))
    assert "running" in status["state"]
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["lastState"]["terminated"]["containerID"] == "vk://app-0"


def test_a_run_in_a_dead_vm_has_ended_in_an_unknown_way() -> None:
    (status,) = _made(Facts(pod(), state(sandbox(run("app"), state=ENDED))))
    ended = status["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "ContainerStatusUnknown")


def test_a_container_to_be_started_waits_for_a_reason() -> None:
    facts = Facts(
        pod(),
        state(sandbox(run("app", exit_code=1))),
        waiting={"app": Waiting("CrashLoopBackOff", "back-off 10s")},
    )
    (status,) = _made(facts)
    assert status["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    assert status["lastState"]["terminated"]["exitCode"] == 1


def test_a_lost_record_of_something_that_ran_is_no_first_start() -> None:
    before = {"name": "app", "restartCount": 2, "state": {"running": {}}, "containerID": "vk://x"}
    (status,) = _made(Facts(pod(), state()), [before])
    assert status["restartCount"] == 3
    assert status["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"


def test_what_ended_once_stays_as_it_was_told() -> None:
    before = {"name": "app", "state": {"terminated": {"exitCode": 9}}, "lastState": {}}
    (status,) = _made(Facts(pod(restartPolicy="Never"), state()), [before])
    assert status["state"]["terminated"]["exitCode"] == 9


def test_probes_decide_on_started_and_ready() -> None:
    probe = {"exec": {"command": ["x"]}}
    spec = pod("web", container(startupProbe=probe, readinessProbe=probe))
    runs = state(sandbox(run("app")))
    results = {
        (None, None): (False, False),
        (True, None): (True, False),
        (True, True): (True, True),
        (True, False): (True, False),
        (False, True): (False, False),
    }
    for (startup, readiness), expected in results.items():
        probes = ProbeResults(
            startup={} if startup is None else {"app-0": startup},
            readiness={} if readiness is None else {"app-0": readiness},
        )
        (status,) = _made(Facts(spec, runs, probes))
        assert (status["started"], status["ready"]) == expected


def test_a_ready_run_stays_ready_until_a_probe_says_otherwise() -> None:
    spec = pod("web", container(readinessProbe={"exec": {"command": ["x"]}}))
    before = {"name": "app", "containerID": "vk://app-0", "ready": True, "state": {"running": {}}}
    (status,) = _made(Facts(spec, state(sandbox(run("app")))), [before])
    assert status["ready"]
    other = {**before, "containerID": "vk://another"}
    (status,) = _made(Facts(spec, state(sandbox(run("app")))), [other])
    assert not status["ready"]


def test_a_finished_init_container_is_ready() -> None:
    spec = pod("web", initContainers=[container("i")])
    (status,) = _made(Facts(spec, state(sandbox(run("i", exit_code=0)))), kind="init")
    assert status["ready"] and not status["started"]


def test_a_lost_init_container_counts_as_done_once_the_apps_were_started() -> None:
    spec = pod("web", container("a"), initContainers=[container("i")])
    (status,) = _made(Facts(spec, state(sandbox(run("a")))), kind="init")
    assert status["state"]["terminated"]["exitCode"] == 0


def test_containers_are_told_by_name_and_init_containers_in_order() -> None:
    spec = pod(
        "web", container("b"), container("a"), initContainers=[container("z"), container("y")]
    )
    assert [s["name"] for s in _made(Facts(spec, state()))] == ["a", "b"]
    assert [s["name"] for s in _made(Facts(spec, state()), kind="init")] == ["z", "y"]


def _message_lengths(count: int) -> set[int]:
    names = [f"c{i}" for i in range(count)]
    spec: Pod = pod("web", *(container(n) for n in names), restartPolicy="Never")
    runs = state(sandbox(*(run(n, exit_code=1) for n in names)))
    messages = {f"{n}-0": "x" * 4096 for n in names}
    made = _made(Facts(spec, runs, messages=messages))
    return {len(s["state"]["terminated"]["message"]) for s in made}


def test_termination_messages_share_12_kib() -> None:
    assert _message_lengths(2) == {4096}
    assert _message_lengths(6) == {2048}


def test_limits_are_told_as_the_cgroup_has_them() -> None:
    spec = pod("web", container(resources={"limits": {"cpu": "500m", "memory": "64Mi"}}))
    running = run("app")
    running.resources.cpu_quota_us = 50_000
    running.resources.memory_limit_bytes = 64 << 20
    (status,) = _made(Facts(spec, state(sandbox(running))))
    assert status["resources"] == {"limits": {"cpu": "500m", "memory": "64Mi"}}
    running.resources.cpu_quota_us = 100_000
    (status,) = _made(Facts(spec, state(sandbox(running))))
    assert status["resources"]["limits"]["cpu"] == "1000m"


def test_who_it_runs_as_is_told() -> None:
    running = run("app")
    running.run_as_user, running.run_as_group = 1000, 2000
    running.supplemental_groups.append(3000)
    (status,) = _made(Facts(pod(), state(sandbox(running))))
    assert status["user"] == {"linux": {"uid": 1000, "gid": 2000, "supplementalGroups": [3000]}}
    created = pb.ContainerStatus(name="app", container_id="c", state=pb.CONTAINER_CREATED)
    (status,) = _made(Facts(pod(), state(sandbox(created))))
    assert "user" not in status and "waiting" in status["state"]
