"""What follows from a pod and its state; cases after kubelet's computePodActions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.pod_states import ENDED, STARTING, run, sandbox, state
from tests.support.pod_world import container, pod
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.actions import ProbeResults, container_hash
from vk_provider.pods.annotations import CONTAINER_HASH
from vk_provider.pods.planner import plan
from vk_provider.pods.podspec import Pod

NONE = ProbeResults()
SIDECAR = container("side", restartPolicy="Always")


def _three(**spec: Any) -> Pod:
    return pod("web", container("a"), container("b"), container("c"), **spec)


def test_a_new_pod_gets_a_sandbox_and_all_its_containers() -> None:
    actions = plan(_three(), state(), NONE)
    assert actions.create_sandbox and actions.attempt == 0 and not actions.replaces_sandbox
    assert actions.start == ["a", "b", "c"]


def test_nothing_to_do_when_all_runs() -> None:
    assert plan(_three(), state(sandbox(run("a"), run("b"), run("c"))), NONE).idle


def test_a_sandbox_that_is_starting_is_joined_under_its_number() -> None:
    actions = plan(_three(), state(sandbox(attempt=2, state=STARTING)), NONE)
    assert (actions.create_sandbox, actions.kill_pod, actions.attempt) == (True, False, 2)


@pytest.mark.parametrize(
    ("policy", "started"),
    [("Always", ["a", "b", "c"]), ("OnFailure", ["b", "c"])],
)
def test_a_dead_sandbox_is_replaced_by_policy(policy: str, started: list[str]) -> None:
    runs = [run("a", exit_code=0), run("b", exit_code=1), run("c")]
    actions = plan(_three(restartPolicy=policy), state(sandbox(*runs, state=ENDED)), NONE)
    assert actions.create_sandbox and actions.attempt == 1 and actions.replaces_sandbox
    assert actions.start == started


def test_a_pod_that_runs_once_gets_no_second_sandbox() -> None:
    dead = state(sandbox(run("a"), run("b"), run("c"), state=ENDED))
    actions = plan(_three(restartPolicy="Never"), dead, NONE)
    assert (actions.kill_pod, actions.create_sandbox) == (True, False)


def test_a_pod_that_runs_once_may_try_its_first_sandbox_again() -> None:
    actions = plan(_three(restartPolicy="Never"), state(sandbox(state=ENDED)), NONE)
    assert actions.create_sandbox and actions.attempt == 1


def test_a_finished_pod_gets_no_new_sandbox() -> None:
    runs = [run(n, exit_code=0) for n in "abc"]
    actions = plan(_three(restartPolicy="OnFailure"), state(sandbox(*runs, state=ENDED)), NONE)
    assert (actions.kill_pod, actions.create_sandbox) == (True, False)


@pytest.mark.parametrize(
    ("policy", "started", "killed"),
    [
        ("Always", ["a", "b"], False),
        ("OnFailure", ["b"], False),
        ("Never", [], False),
    ],
)
def test_ended_containers_follow_the_policy(policy: str, started: list[str], killed: bool) -> None:
    runs = state(sandbox(run("a", exit_code=0), run("b", exit_code=1), run("c")))
    actions = plan(_three(restartPolicy=policy), runs, NONE)
    assert (actions.start, actions.kill_pod) == (started, killed)


def test_when_nothing_runs_or_will_the_pod_is_over() -> None:
    runs = state(sandbox(*(run(n, exit_code=1) for n in "abc")))
    assert plan(_three(restartPolicy="Never"), runs, NONE).kill_pod


def test_a_failed_liveness_probe_kills_and_restarts() -> None:
    probes = ProbeResults(failed_liveness={"b-0"})
    actions = plan(_three(), state(sandbox(run("a"), run("b"), run("c"))), probes)
    assert list(actions.kills) == ["b-0"] and actions.start == ["b"]
    assert actions.kills["b-0"].reason == "LivenessProbe"
    assert actions.kills["b-0"].message.endswith("will be restarted")


def test_a_failed_startup_probe_kills_for_good_where_nothing_restarts() -> None:
    probes = ProbeResults(startup={"b-0": False})
    runs = state(sandbox(run("a"), run("b"), run("c")))
    actions = plan(_three(restartPolicy="Never"), runs, probes)
    assert list(actions.kills) == ["b-0"] and actions.start == []


def test_a_changed_definition_restarts_whatever_the_policy() -> None:
    old = run("a")
    old.annotations[CONTAINER_HASH] = container_hash(container("a", image="registry.test/app:0"))
    actions = plan(pod("web", container("a"), restartPolicy="Never"), state(sandbox(old)), NONE)
    assert actions.start == ["a"] and list(actions.kills) == ["a-0"]


def test_a_run_of_unknown_state_is_killed_before_the_next() -> None:
    lost = run("a")
    lost.state = pb.CONTAINER_UNKNOWN
    actions = plan(pod("web", container("a")), state(sandbox(lost)), NONE)
    assert list(actions.kills) == ["a-0"] and actions.start == ["a"]


def test_two_ready_sandboxes_are_one_too_many() -> None:
    actions = plan(_three(), state(sandbox(), sandbox(attempt=1)), NONE)
    assert actions.kill_pod and actions.create_sandbox and actions.attempt == 2


def _with_inits(*inits: dict[str, object], **spec: Any) -> Pod:
    return pod("web", container("a"), initContainers=list(inits), **spec)


@pytest.mark.parametrize(
    ("runs", "init", "apps"),
    [
        ([], ["i1"], []),
        ([run("i1")], [], []),
        ([run("i1", exit_code=0)], ["i2"], []),
        ([run("i1", exit_code=1)], ["i1"], []),
        ([run("i1", exit_code=0), run("i2", exit_code=0)], [], ["a"]),
        ([run("i2", exit_code=0)], [], ["a"]),
        ([run("i1", exit_code=0), run("i2", exit_code=0), run("a")], [], []),
        ([run("a", exit_code=1)], [], ["a"]),
    ],
)
def test_init_containers_one_by_one(
    runs: list[pb.ContainerStatus], init: list[str], apps: list[str]
) -> None:
    actions = plan(_with_inits(container("i1"), container("i2")), state(sandbox(*runs)), NONE)
    assert (actions.start_init, actions.start) == (init, apps)


def test_a_failed_init_container_ends_a_pod_that_runs_once() -> None:
    spec = _with_inits(container("i1"), restartPolicy="Never")
    actions = plan(spec, state(sandbox(run("i1", exit_code=1))), NONE)
    assert actions.kill_pod and not actions.start_init and not actions.start


def test_a_sidecar_lets_the_next_one_start_once_it_has_started() -> None:
    probed = {**SIDECAR, "startupProbe": {"exec": {"command": ["x"]}}}
    spec = _with_inits(probed, container("i2"))
    running = state(sandbox(run("side")))
    assert plan(spec, running, NONE).start_init == []
    assert plan(spec, running, ProbeResults(startup={"side-0": True})).start_init == ["i2"]
    failed = plan(spec, running, ProbeResults(startup={"side-0": False}))
    assert list(failed.kills) == ["side-0"] and failed.start_init == ["side"]


def test_a_sidecar_is_restarted_while_the_apps_run() -> None:
    runs = state(sandbox(run("side", exit_code=1), run("a")))
    actions = plan(_with_inits(SIDECAR, restartPolicy="Never"), runs, NONE)
    assert actions.start_init == ["side"] and not actions.kill_pod


def test_sidecars_alone_do_not_keep_a_pod() -> None:
    runs = state(sandbox(run("side", exit_code=1), run("a", exit_code=0)))
    actions = plan(_with_inits(SIDECAR, restartPolicy="Never"), runs, NONE)
    assert actions.kill_pod and actions.start_init == []


def test_in_a_new_sandbox_initialization_begins_anew() -> None:
    old = sandbox(run("i1", exit_code=0), run("a"), state=ENDED)
    actions = plan(_with_inits(container("i1")), state(old, sandbox(attempt=1)), NONE)
    assert (actions.start_init, actions.start) == (["i1"], [])


def test_an_ephemeral_container_is_started_even_before_initialization_is_over() -> None:
    spec = _with_inits(container("i1"), ephemeralContainers=[container("debug")])
    assert plan(spec, state(sandbox(run("i1"))), NONE).start_ephemeral == ["debug"]
    ended = state(sandbox(run("i1"), run("debug", exit_code=1)))
    assert plan(spec, ended, NONE).start_ephemeral == []


@pytest.mark.parametrize(
    ("operator", "values", "code", "starts"),
    [
        ("In", [42], 42, True),
        ("In", [42], 1, False),
        ("NotIn", [42], 1, True),
        ("NotIn", [42], 42, False),
    ],
)
def test_restart_rules_by_exit_code(
    operator: str, values: list[int], code: int, starts: bool
) -> None:
    rule = {"action": "Restart", "exitCodes": {"operator": operator, "values": values}}
    spec = container("a", restartPolicy="Never", restartPolicyRules=[rule])
    actions = plan(pod("web", spec), state(sandbox(run("a", exit_code=code))), NONE)
    assert bool(actions.start) is starts
