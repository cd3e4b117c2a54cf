"""Times of the steps of a start."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vk_provider._pb import sandbox_pb2 as pb


class Phases:
    """Collects how long each step took, in ns since this object was made."""

    def __init__(self) -> None:
        self._zero = time.monotonic_ns()
        self._zero_wall = time.time_ns()
        self.done: list[pb.Phase] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.monotonic_ns()
        try:
            yield
        finally:
            self._add(name, start, time.monotonic_ns())

    def take(self, phases: Sequence[tuple[str, int, int]]) -> None:
        """Take over steps that a neighbour timed (wall clock, ns)."""
        shift = self._zero - self._zero_wall
        for name, start, end in phases:
            self._add(name, start + shift, end + shift)

    def take_earlier(self, phases: Sequence[pb.Phase]) -> None:
        """Take over the steps that made a VM ready; their times count from its beginning."""
        self.done += [
            pb.Phase(name=f"ready_{p.name}", start_ns=p.start_ns, end_ns=p.end_ns) for p in phases
        ]

    def _add(self, name: str, start: int, end: int) -> None:
        self.done.append(
            pb.Phase(
                name=name,
                start_ns=max(0, start - self._zero),
                end_ns=max(0, end - self._zero),
            )
        )
