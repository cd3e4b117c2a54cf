"""Which VM a pod gets: the size that it is given and billed.

The rule is the one that Tencent's TKE documents for its super nodes: the larger of the sum of
requests and the largest single limit, init containers apart from the others, rounded up to a
size of a table, CPU first. It differs in one point: a limit above the host's largest size asks
for no more than that size, since a limit is a ceiling and no claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Exhausted, Invalid
from vk_provider.common.quantity import cpu_milli, whole

GIB = 1024**3
_STEP = GIB // 2
_DEFAULT = (1000, 2 * GIB)
_OVERRIDE = re.compile(r"([^x\s]+)x([^x\s]+)")

# CPU in thousandths: (least, most) memory in GiB, in steps of 1 GiB.
_TABLE: dict[int, tuple[int, ...]] = {
    500: tuple(range(1, 5)),
    1000: tuple(range(1, 9)),
    2000: tuple(range(4, 17)),
    4000: tuple(range(8, 33)),
    8000: tuple(range(16, 33)),
    12000: tuple(range(24, 49)),
    16000: tuple(range(32, 65)),
}


@dataclass(frozen=True, order=True)
class Size:
    """One row of the table."""

    cpu_milli: int
    memory_bytes: int

    def __str__(self) -> str:
        return f"{self.cpu_milli / 1000:g} vCPU, {self.memory_bytes / GIB:g} GiB"


def default_table() -> list[Size]:
    """Return every size, smallest first."""
    small = [Size(250, _STEP), Size(250, GIB), Size(250, 2 * GIB)]
    return small + [Size(cpu, gib * GIB) for cpu, row in _TABLE.items() for gib in row]


def table_for_host(cpu_milli: int, memory_bytes: int) -> list[Size]:
    """Return the sizes that a host with so much can hold.

    Where the host lies between two rows, it is a row of its own, so that all of it can be used.
    """
    table = {
        size
        for size in default_table()
        if size.cpu_milli <= cpu_milli and size.memory_bytes <= memory_bytes
    }
    # The rows may end below what the host has, or begin above it.
    table.add(Size(cpu_milli // 1000 * 1000 or cpu_milli, memory_bytes // _STEP * _STEP))
    return sorted(table)


def choose_shape(
    demand: Iterable[pb.ContainerDemand], override: str, table: Sequence[Size]
) -> pb.Shape:
    """Return the shape for a pod.

    demand: what its containers ask for. override: "2x4Gi" (CPU x memory, as quantities), or "".
    table: the sizes to choose from, smallest first. Raises Invalid for an override that is none,
    Exhausted where no size is large enough.
    """
    if override:
        cpu, memory = _parse_override(override)
        why = f"asked for as {override!r}"
    else:
        cpu, memory, why = _wanted(list(demand), table)
    return _shape(_round_up(cpu, memory, table, why), why)


def usual_shapes(table: Sequence[Size]) -> list[pb.Shape]:
    """Return what most pods get: the smallest size, and that of a pod that asks for nothing."""
    if not table:
        return []
    smallest = min(table)
    shapes = [
        _shape(smallest, "the smallest"),
        choose_shape((), "", table),
    ]
    machines = {(shape.vcpus, shape.memory_bytes): shape for shape in shapes}
    return list(machines.values())


def _shape(size: Size, why: str) -> pb.Shape:
    return pb.Shape(
        cpu_milli=size.cpu_milli,
        memory_bytes=size.memory_bytes,
        vcpus=-(-size.cpu_milli // 1000),
        reason=f"{size}: {why}",
    )


def _parse_override(text: str) -> tuple[int, int]:
    match = _OVERRIDE.fullmatch(text.strip())
    if match is None:
        raise Invalid(f"the size {text!r} is none; write CPU x memory, such as 2x4Gi or 0.5x1Gi")
    cpu, memory = cpu_milli(match[1]), whole(match[2])
    if cpu <= 0 or memory <= 0:
        raise Invalid(f"the size {text!r} is none: both its parts must be above 0")
    return cpu, memory


def _wanted(demand: list[pb.ContainerDemand], table: Sequence[Size]) -> tuple[int, int, str]:
    most_cpu = max((s.cpu_milli for s in table), default=0)
    most_memory = max((s.memory_bytes for s in table), default=0)
    cpu = _aggregate(
        [(d.kind, d.cpu_request_milli, min(d.cpu_limit_milli, most_cpu)) for d in demand]
    )
    memory = _aggregate(
        [(d.kind, d.memory_request_bytes, min(d.memory_limit_bytes, most_memory)) for d in demand]
    )
    if not cpu and not memory:
        return min(_DEFAULT[0], most_cpu), min(_DEFAULT[1], most_memory), "nothing was asked for"
    return cpu, memory, f"asked for {cpu / 1000:g} vCPU and {memory / GIB:.3g} GiB"


def _aggregate(rows: list[tuple[pb.ContainerDemand.Kind.ValueType, int, int]]) -> int:
    """Return the larger of what init containers and what the others need together.

    Sidecars run beside both. An init container's request counts with the sidecars', one at a time.
    """
    kinds = pb.ContainerDemand
    lasting = [row for row in rows if row[0] != kinds.INIT]
    sidecars = sum(request for kind, request, _ in rows if kind == kinds.SIDECAR)
    init = [row for row in rows if row[0] == kinds.INIT]
    main = max(sum(r for _, r, _ in lasting), max((limit for _, _, limit in lasting), default=0))
    before = max((max(request + sidecars, limit) for _, request, limit in init), default=0)
    return max(main, before)


def _round_up(cpu: int, memory: int, table: Sequence[Size], why: str) -> Size:
    for size in table:
        if size.cpu_milli >= cpu and size.memory_bytes >= memory:
            return size
    largest = table[-1] if table else "none"
    raise Exhausted(
        f"no VM size of this host is large enough ({why}; the largest is {largest}); "
        "ask for less, or use a larger host"
    )
