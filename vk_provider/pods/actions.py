"""What a plan consists of, and what it is made from besides the pod and its state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Literal

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.annotations import CONTAINER_HASH
from vk_provider.pods.podspec import Container

KillReason = Literal["LivenessProbe", "StartupProbe", "FailedPostStartHook", "Unknown"]


@dataclass(frozen=True, slots=True)
class ProbeResults:
    """What the probes have found out, by container id; absent: nothing yet."""

    failed_liveness: Set[str] = frozenset()
    startup: Mapping[str, bool] = field(default_factory=dict)
    readiness: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kill:
    """A running container that must end, and why."""

    container_id: str
    name: str
    message: str
    reason: KillReason = "Unknown"


@dataclass(slots=True)
class PodActions:
    """What follows, in the order of the fields; containers by name, in the order of the spec."""

    kill_pod: bool = False
    create_sandbox: bool = False
    attempt: int = 0
    """Of the sandbox to create or to use."""
    replaces_sandbox: bool = False
    """A sandbox was there and is no longer good: worth the event SandboxChanged."""
    kills: dict[str, Kill] = field(default_factory=dict)
    resize: list[str] = field(default_factory=list)
    """Running containers whose limits change."""
    start_ephemeral: list[str] = field(default_factory=list)
    start_init: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Nothing is to be done."""
        return not (
            self.kill_pod
            or self.create_sandbox
            or self.kills
            or self.resize
            or self.start_ephemeral
            or self.start_init
            or self.start
        )


def container_hash(container: Container) -> str:
    """Return the hash of the fields whose change restarts a container: name and image."""
    text = f"{container['name']}\0{container.get('image', '')}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_changed(container: Container, status: pb.ContainerStatus) -> bool:
    """Say whether a run was made from another definition than today's."""
    noted = status.annotations.get(CONTAINER_HASH)
    return noted is not None and noted != container_hash(container)


def kill_unknown(status: pb.ContainerStatus, kind: str, actions: PodActions) -> None:
    """Have a run of unknown state killed before its next, so that never two of them run."""
    text = f'{kind} is in "unknown" state, try killing it before restart'
    actions.kills[status.container_id] = Kill(status.container_id, status.name, text)
