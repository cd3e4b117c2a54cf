"""One pod as the kubelet's API sees it: the object, and the ids behind its names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vk_provider.pods.pod_state import PodState
from vk_provider.pods.podspec import Pod


@dataclass(frozen=True, slots=True)
class PodEntry:
    """A pod with its newest status, and what the runtime has of it."""

    pod: Pod
    state: PodState

    @property
    def status(self) -> Mapping[str, Any]:
        """The newest status, written or not."""
        found: Mapping[str, Any] = self.pod["status"]
        return found

    @property
    def sandbox_id(self) -> str:
        """The id of the newest sandbox, "" where there is none."""
        return self.state.sandbox.sandbox_id if self.state.sandbox is not None else ""

    def container_id(self, name: str, previous: bool = False) -> str | None:
        """Return the id of a container's latest run that has begun, or of the one before it.

        None where there is no such run: the container is unknown, waiting, or its record is gone.
        """
        runs = [run for run in self.state.history(name) if run.started_at_ns or run.finished_at_ns]
        index = 1 if previous else 0
        if previous and runs and runs[0].attempt < self._restarts(name):
            index = 0  # the present run has not begun, so the last that did is the previous one
        return runs[index].container_id if len(runs) > index else None

    def _restarts(self, name: str) -> int:
        latest = self.state.latest(name)
        return latest.attempt if latest is not None else 0
