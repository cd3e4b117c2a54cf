"""Events of pods that wait for the host's disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.pod_states import ENDED, run, sandbox, state
from tests.support.pod_world import container, pod
from vk_provider.pods.holds import tell_holds
from vk_provider.pods.pod_state import PodState

POD = pod("web", container("main"))
GOES, FULL = sandbox(run("main")), sandbox(run("main"))
FULL.held = "no room"
QUIET = sandbox(run("main"))
QUIET.containers[0].log_held = "No space left on device"


class Events:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def event(
        self, _obj: Mapping[str, Any], kind: str, reason: str, message: str, *, field_path: str = ""
    ) -> None:
        assert message
        self.told.append((kind, reason, field_path))


def told(before: PodState, after: PodState) -> list[tuple[str, str, str]]:
    events = Events()
    tell_holds(events, POD, before, after)
    return events.told


def test_a_vm_that_stands_still_and_goes_on() -> None:
    assert told(state(GOES), state(FULL)) == [("Warning", "VMPaused", "")]
    assert told(state(FULL), state(FULL)) == []
    assert told(state(FULL), state(GOES)) == [("Normal", "VMResumed", "")]
    assert told(state(GOES), state(GOES)) == []


def test_a_log_that_waits_and_is_written_again() -> None:
    path = "spec.containers{main}"
    assert told(state(GOES), state(QUIET)) == [("Warning", "LogWriteFailed", path)]
    assert told(state(QUIET), state(QUIET)) == []
    assert told(state(QUIET), state(GOES)) == [("Normal", "LogWriteResumed", path)]


def test_what_a_new_node_process_finds_waiting_is_told() -> None:
    assert told(state(), state(FULL)) == [("Warning", "VMPaused", "")]
    assert told(state(), state(QUIET)) == [("Warning", "LogWriteFailed", "spec.containers{main}")]


def test_what_has_ended_goes_on_no_more() -> None:
    assert told(state(QUIET), state()) == []
    assert told(state(FULL), state(sandbox(state=ENDED))) == []
    assert told(state(QUIET), state(sandbox(run("main", exit_code=0), state=ENDED))) == []
