"""A test's own waiting on a cluster, bounded."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

_TURN_S = 0.3


def until(
    condition: Callable[[], object],
    story: Callable[[], str] = lambda: "it did not come true in time",
    within_s: float = 90,
) -> None:
    """Ask again until it holds; fail with the story when it does not in that time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, story()
        time.sleep(_TURN_S)


def listens(path: Path) -> bool:
    """Say whether somebody listens at that unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
