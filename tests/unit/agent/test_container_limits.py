"""What is told of a container's limits after a change."""

from __future__ import annotations

import pytest

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.container_limits import _read_back
from vk_provider.common.errors import Unavailable


@pytest.mark.parametrize(
    ("asked", "kernel_has", "told"),
    [
        (1_000_000_000, 999_997_440, 1_000_000_000),  # whole pages, and no other limit
        (1_000_000_000, 500_000_000, 500_000_000),
        (0, -1, 0),
    ],
)
def test_a_limit_in_whole_pages_is_the_one_that_was_asked_for(
    asked: int, kernel_has: int, told: int
) -> None:
    wanted = pb.LinuxResources(memory_limit_bytes=asked, cpu_quota_us=5000)
    text = f'{{"memory": {{"limit": {kernel_has}}}, "cpu": {{"quota": 7000, "period": 100000}}}}'
    found = _read_back(wanted, text)
    assert (found.memory_limit_bytes, found.cpu_quota_us) == (told, 7000)


def test_what_makes_no_sense_is_told() -> None:
    with pytest.raises(Unavailable, match="make no sense"):
        _read_back(pb.LinuxResources(), '{"memory": 3}')
