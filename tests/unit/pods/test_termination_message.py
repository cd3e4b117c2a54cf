"""What containers say about their end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.fake_exec import FakeExec
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Unavailable
from vk_provider.pods.termination_message import FALLBACK_TO_LOGS, termination_message


def ended(**fields: Any) -> pb.ContainerStatus:
    status = pb.ContainerStatus(container_id="c1", state=pb.CONTAINER_EXITED, exit_code=1)
    for name, value in fields.items():
        setattr(status, name, value)
    return status


@pytest.mark.parametrize(
    ("status", "policy", "message"),
    [
        (ended(termination_message=b"bye\xff"), "File", "bye\ufffd"),
        (ended(termination_message=b"x" * 5000), "File", "x" * 4096),
        (ended(), "File", ""),
        (ended(), FALLBACK_TO_LOGS, "last words"),
        (ended(termination_message=b"bye"), FALLBACK_TO_LOGS, "bye"),
        (ended(exit_code=0), FALLBACK_TO_LOGS, ""),
        (ended(reason="StartError", message="no such file"), FALLBACK_TO_LOGS, "no such file"),
        (ended(reason="OOMKilled", message="out"), FALLBACK_TO_LOGS, "out: last words"),
        (ended(state=pb.CONTAINER_RUNNING), FALLBACK_TO_LOGS, ""),
    ],
)
async def test_the_message(status: pb.ContainerStatus, policy: str, message: str) -> None:
    fake = FakeExec()
    fake.log = [b"last ", b"words"]
    assert await termination_message(fake.runtime, status, policy) == message


async def test_only_the_end_of_a_long_log_is_kept() -> None:
    fake = FakeExec()
    fake.log = [b"a" * 3000, b"b" * 1000]
    found = await termination_message(fake.runtime, ended(), FALLBACK_TO_LOGS)
    assert found == "a" * 1048 + "b" * 1000


async def test_a_log_that_can_not_be_read_is_said() -> None:
    fake = FakeExec()
    fake.log = Unavailable("the agent is away")
    found = await termination_message(fake.runtime, ended(), FALLBACK_TO_LOGS)
    assert found == "Error on reading termination message from logs: the agent is away"
