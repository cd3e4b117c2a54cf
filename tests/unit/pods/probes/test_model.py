"""Probes' settings and the counting of answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.podspecs import container
from vk_provider.pods.probes.model import (
    CheckError,
    ProbeKind,
    ProbeResult,
    ProbeSpec,
    Tally,
)
from vk_provider.pods.probes.ports import host_port, resolve_port

YES, NO = ProbeResult.SUCCESS, ProbeResult.FAILURE


def spec(**fields: Any) -> ProbeSpec:
    found = ProbeSpec.of(container(livenessProbe={"exec": {}} | fields), ProbeKind.LIVENESS)
    assert found
    return found


def test_what_a_probe_leaves_out_has_the_apis_defaults() -> None:
    found = spec()
    assert (found.initial_delay_s, found.period_s, found.timeout_s) == (0, 10, 1)
    assert (found.success_threshold, found.failure_threshold) == (1, 3)
    assert ProbeSpec.of(container(), ProbeKind.LIVENESS) is None


@pytest.mark.parametrize(
    ("success", "failure", "answers", "decisions"),
    [
        (1, 3, [YES, NO, NO, NO, NO], [YES, None, None, NO, NO]),
        (1, 3, [NO, NO, YES, NO, NO], [None, None, YES, None, None]),
        (2, 1, [YES, NO, YES, YES, YES], [None, NO, None, YES, YES]),
        (1, 1, [NO, YES], [NO, YES]),
    ],
)
def test_only_enough_equal_answers_in_a_row_decide(
    success: int,
    failure: int,
    answers: list[ProbeResult],
    decisions: list[ProbeResult | None],
) -> None:
    tally = Tally(spec(successThreshold=success, failureThreshold=failure))
    assert [tally.count(answer) for answer in answers] == decisions


PORTS = [{"name": "web", "containerPort": 8080}, {"name": "no", "containerPort": 0}]


@pytest.mark.parametrize(("port", "number"), [(80, 80), ("web", 8080), ("90", 90)])
def test_ports_by_number_and_by_name(port: int | str, number: int) -> None:
    assert resolve_port(port, container(ports=PORTS)) == number


@pytest.mark.parametrize("port", [0, 65536, -1, None, "other", "no", "70000"])
def test_ports_that_are_none(port: int | str | None) -> None:
    with pytest.raises(CheckError):
        resolve_port(port, container(ports=PORTS))


def test_ipv6_addresses_are_put_in_brackets() -> None:
    assert host_port("10.0.0.1", 80) == "10.0.0.1:80"
    assert host_port("fd00::1", 80) == "[fd00::1]:80"
