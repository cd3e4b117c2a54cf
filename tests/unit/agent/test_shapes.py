"""The rule that sizes a pod's VM."""

from __future__ import annotations

import pytest

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.shapes import GIB, Size, choose_shape, default_table, table_for_host
from vk_provider.common.errors import Exhausted, Invalid

KIND = pb.ContainerDemand
TABLE = default_table()


def demand(
    cpu: int = 0,
    memory: float = 0,
    cpu_limit: int = 0,
    memory_limit: float = 0,
    kind: int = KIND.APP,
) -> pb.ContainerDemand:
    return pb.ContainerDemand(
        kind=pb.ContainerDemand.Kind.ValueType(kind),
        cpu_request_milli=cpu,
        memory_request_bytes=int(memory * GIB),
        cpu_limit_milli=cpu_limit,
        memory_limit_bytes=int(memory_limit * GIB),
    )


def chosen(*containers: pb.ContainerDemand, override: str = "") -> tuple[int, float]:
    shape = choose_shape(containers, override, TABLE)
    return shape.cpu_milli, shape.memory_bytes / GIB


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([demand()], (1000, 2)),
        ([demand(100, 0.1)], (250, 0.5)),
        ([demand(300, 0.1)], (500, 1)),
        ([demand(200, 0.2), demand(200, 0.2)], (500, 1)),
        ([demand(100, 0.1, 1000, 1)], (1000, 1)),
        ([demand(250, 3)], (500, 3)),
        ([demand(memory=7)], (1000, 7)),
        ([demand(100, 0.1), demand(2000, 1, kind=KIND.INIT)], (2000, 4)),
        ([demand(500, 1), demand(700, 1, kind=KIND.SIDECAR)], (2000, 4)),
        ([demand(), demand(500, 1, kind=KIND.SIDECAR), demand(500, 1, kind=KIND.INIT)], (1000, 2)),
    ],
)
def test_the_larger_of_sum_and_limit_is_rounded_up(
    containers: list[pb.ContainerDemand], expected: tuple[int, float]
) -> None:
    assert chosen(*containers) == expected


def test_the_annotation_overrides_and_is_rounded_up() -> None:
    assert chosen(demand(4000, 8), override="2x4Gi") == (2000, 4)
    assert chosen(override="250mx512Mi") == (250, 0.5)


@pytest.mark.parametrize("text", ["2", "x", "2x", "twox4Gi", "0x1Gi", "-1x1Gi", "2x4Gi,1x1Gi"])
def test_a_wrong_annotation_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        chosen(override=text)


def test_what_no_size_holds_is_refused_but_a_large_limit_is_not() -> None:
    table = table_for_host(2000, 7 * GIB)
    assert table[-1] == Size(2000, 7 * GIB)
    with pytest.raises(Exhausted, match="largest is 2 vCPU, 7 GiB"):
        choose_shape([demand(3000)], "", table)
    shape = choose_shape([demand(100, 0.1, 8000, 64)], "", table)
    assert (shape.cpu_milli, shape.memory_bytes) == (2000, 7 * GIB)


def test_the_reason_is_a_sentence_for_the_event() -> None:
    shape = choose_shape([demand(300, 0.5)], "", TABLE)
    assert shape.reason == "0.5 vCPU, 1 GiB: asked for 0.3 vCPU and 0.5 GiB"
    assert shape.vcpus == 1
