"""What the agent writes down about sandboxes, containers and their use. No secrets.

The messages of `sandbox.proto` are the records; what callers do not see stands beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Internal


class Phase(Enum):
    """Where a sandbox's life is. Written before the step that it names."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    """Being taken down; whoever finds it so finishes that."""
    ENDED = "ended"
    REMOVING = "removing"
    """To leave no trace, its record last."""


_NEXT: dict[Phase, frozenset[Phase]] = {
    Phase.STARTING: frozenset({Phase.READY, Phase.STOPPING, Phase.REMOVING}),
    Phase.READY: frozenset({Phase.STOPPING, Phase.REMOVING}),
    Phase.STOPPING: frozenset({Phase.ENDED, Phase.REMOVING}),
    Phase.ENDED: frozenset({Phase.REMOVING}),
    Phase.REMOVING: frozenset(),
}

_STATE_OF: dict[Phase, pb.SandboxState.ValueType] = {
    Phase.STARTING: pb.SANDBOX_STARTING,
    Phase.READY: pb.SANDBOX_READY,
    Phase.STOPPING: pb.SANDBOX_NOT_READY,
    Phase.ENDED: pb.SANDBOX_NOT_READY,
    Phase.REMOVING: pb.SANDBOX_NOT_READY,
}


@dataclass
class Disk:
    """An image disk that was given to a VM."""

    lun: int
    image_ref: str
    key: str


@dataclass
class SandboxRecord:
    """One sandbox. `status` lacks `containers`; `vm` is the hypervisor's own record as JSON."""

    status: pb.SandboxStatus
    phase: Phase = Phase.STARTING
    uid: int = 0
    vm: str = ""
    disks: list[Disk] = field(default_factory=list)
    machine_id: str = ""
    """Names the VM and what it has on the host (control group, namespace, folders): the sandbox's
    own id, or that of a VM that was started before the pod came."""
    started_at_ns: int = 0
    """When the VM started; 0 before it did."""
    vm_cpu_before_ns: int = 0
    """What the VM had used before it became this sandbox's."""
    hostname: str = ""
    share_process_namespace: bool = False

    def __post_init__(self) -> None:
        self.machine_id = self.machine_id or self.id

    @property
    def id(self) -> str:
        return self.status.sandbox_id

    @property
    def live(self) -> bool:
        """Whether there may be a VM."""
        return self.phase in (Phase.STARTING, Phase.READY, Phase.STOPPING)

    def enter(self, phase: Phase) -> None:
        """Move on. Raises Internal for a step that the life of a sandbox does not have."""
        if phase is self.phase:
            return
        if phase not in _NEXT[self.phase]:
            raise Internal(
                f"sandbox {self.id} cannot become {phase.value}: it is {self.phase.value}"
            )
        self.phase = phase
        self.status.state = _STATE_OF[phase]


@dataclass
class ContainerRecord:
    """One container. Its process (which holds the environment) is known to the guest alone."""

    status: pb.ContainerStatus
    log_path: str
    image_key: str
    stop_signal: str
    tty: bool = False
    stdin: bool = False
    made: bool = False
    """Whether the guest has it; what is not made yet is made anew."""

    @property
    def id(self) -> str:
        return self.status.container_id

    @property
    def sandbox_id(self) -> str:
        return self.status.sandbox_id

    @property
    def running(self) -> bool:
        return self.status.state == pb.CONTAINER_RUNNING

    @property
    def exited(self) -> bool:
        return self.status.state == pb.CONTAINER_EXITED
