"""One round of a probe, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.fake_exec import FakeExec
from tests.support.podspecs import container, make_pod
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Unavailable
from vk_provider.pods.probes.checker import Round, Target, probe_once
from vk_provider.pods.probes.model import ProbeKind, ProbeResult, ProbeSpec


async def probe(fake: FakeExec, probe: Any = None, **fields: Any) -> Round:
    app = container(livenessProbe=probe or {"exec": {"command": ["check"]}}, **fields)
    spec = ProbeSpec.of(app, ProbeKind.LIVENESS)
    assert spec
    return await probe_once(fake.runtime, spec, Target(make_pod(app), app, "c1", "127.0.0.1"))


async def test_exit_code_0_is_a_success_without_words() -> None:
    fake = FakeExec()
    assert await probe(fake) == Round(ProbeResult.SUCCESS)
    assert fake.commands == [["check"]]


async def test_another_exit_code_is_a_failure_with_the_output() -> None:
    fake = FakeExec()
    fake.outcomes = [pb.ExecExit(code=3)]
    fake.stdout, fake.stderr = b"out ", b"err\xff"
    assert await probe(fake) == Round(
        ProbeResult.FAILURE, ("Unhealthy", "Liveness probe failed: out err\ufffd")
    )


async def test_output_is_cut() -> None:
    fake = FakeExec()
    fake.outcomes = [pb.ExecExit(code=1)]
    fake.stdout = fake.stderr = b"x" * 9000
    found = await probe(fake)
    assert found.event
    assert len(found.event[1]) == len("Liveness probe failed: ") + 10 * 1024


async def test_a_command_that_takes_too_long_is_a_failure() -> None:
    fake = FakeExec()
    fake.outcomes = [pb.ExecExit(code=137, timed_out=True)]
    found = await probe(fake)
    assert found.result is ProbeResult.FAILURE
    assert found.event
    assert "timed out after 1 s" in found.event[1]


@pytest.mark.parametrize(
    "outcome", [pb.ExecExit(code=127, error="check: not found"), Unavailable("away")]
)
async def test_a_check_that_can_not_be_made_says_nothing_of_the_container(outcome: Any) -> None:
    fake = FakeExec()
    fake.outcomes = [outcome]
    found = await probe(fake)
    assert found.result is None
    assert found.event
    assert found.event[0] == "Unhealthy"
    assert found.event[1].startswith("Liveness probe errored and resulted in unknown state: ")
    assert len(fake.commands) == 3


async def test_a_check_that_could_not_be_made_is_made_again_at_once() -> None:
    fake = FakeExec()
    fake.outcomes = [Unavailable("away"), pb.ExecExit(code=0)]
    assert await probe(fake) == Round(ProbeResult.SUCCESS)


async def test_only_values_of_the_spec_are_put_into_commands() -> None:
    fake = FakeExec()
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    await probe(fake, {"exec": {"command": ["$(A)", "$(B)", "$(C)"]}}, env=env)
    assert fake.commands == [["1", "", "$(C)"]]


async def test_a_port_without_a_name_is_an_error() -> None:
    found = await probe(FakeExec(), {"tcpSocket": {"port": "web"}})
    assert found.result is None
    assert found.event
    assert 'container "app" has no port named "web"' in found.event[1]


async def test_a_probe_without_a_handler_is_an_error() -> None:
    found = await probe(FakeExec(), {"periodSeconds": 1})
    assert found.event
    assert "missing probe handler for web_shop(u-1):app" in found.event[1]
