"""What the runtime says of one pod, sorted for decisions (kubelet `kubecontainer.PodStatus`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from vk_provider._pb import sandbox_pb2 as pb

REASON_STATUS_UNKNOWN = "ContainerStatusUnknown"
EXIT_CODE_UNKNOWN = 137


@dataclass(frozen=True)
class PodState:
    """A pod's sandboxes and containers, the newest first; never changed in place."""

    sandboxes: tuple[pb.SandboxStatus, ...] = ()

    @classmethod
    def of(cls, sandboxes: Iterable[pb.SandboxStatus]) -> PodState:
        """Take the runtime's answer, in any order."""
        return cls(tuple(sorted(sandboxes, key=lambda s: s.attempt, reverse=True)))

    @property
    def sandbox(self) -> pb.SandboxStatus | None:
        """The newest sandbox."""
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def ready_sandbox(self) -> pb.SandboxStatus | None:
        """The newest sandbox where containers can run in it."""
        sandbox = self.sandbox
        return sandbox if sandbox is not None and sandbox.state == pb.SANDBOX_READY else None

    @cached_property
    def containers(self) -> tuple[pb.ContainerStatus, ...]:
        """All runs of all containers; those that a dead VM took along count as exited."""
        found = [_settled(sandbox, c) for sandbox in self.sandboxes for c in sandbox.containers]
        return tuple(sorted(found, key=lambda c: (c.attempt, c.created_at_ns), reverse=True))

    @cached_property
    def active(self) -> tuple[pb.ContainerStatus, ...]:
        """The runs in the ready sandbox."""
        sandbox = self.ready_sandbox
        if sandbox is None:
            return ()
        return tuple(c for c in self.containers if c.sandbox_id == sandbox.sandbox_id)

    def history(self, name: str) -> list[pb.ContainerStatus]:
        """Return the runs of one container, the latest first."""
        return [c for c in self.containers if c.name == name]

    def latest(self, name: str) -> pb.ContainerStatus | None:
        """Return a container's latest run in any sandbox."""
        return next((c for c in self.containers if c.name == name), None)

    def latest_active(self, name: str) -> pb.ContainerStatus | None:
        """Return a container's latest run in the ready sandbox."""
        return next((c for c in self.active if c.name == name), None)

    def running(self) -> list[pb.ContainerStatus]:
        """Return the runs that are running, in any sandbox."""
        return [c for c in self.containers if c.state == pb.CONTAINER_RUNNING]

    def live_sandboxes(self) -> list[pb.SandboxStatus]:
        """Return the sandboxes that hold a VM, or may."""
        return [s for s in self.sandboxes if s.state != pb.SANDBOX_NOT_READY]

    def with_sandbox(self, sandbox: pb.SandboxStatus) -> PodState:
        """Return this state with one sandbox replaced or added."""
        others = (s for s in self.sandboxes if s.sandbox_id != sandbox.sandbox_id)
        return PodState.of([*others, sandbox])

    def with_container(self, container: pb.ContainerStatus) -> PodState:
        """Return this state with one run replaced or added in its sandbox."""
        old = next((s for s in self.sandboxes if s.sandbox_id == container.sandbox_id), None)
        if old is None:
            return self
        sandbox = pb.SandboxStatus()
        sandbox.CopyFrom(old)
        del sandbox.containers[:]
        sandbox.containers.extend(
            c for c in old.containers if c.container_id != container.container_id
        )
        sandbox.containers.append(container)
        return self.with_sandbox(sandbox)


def _settled(sandbox: pb.SandboxStatus, container: pb.ContainerStatus) -> pb.ContainerStatus:
    """Return the run as it must be, given its sandbox: nothing runs in a VM that is gone."""
    gone = sandbox.state == pb.SANDBOX_NOT_READY
    if not gone or container.state not in {pb.CONTAINER_RUNNING, pb.CONTAINER_UNKNOWN}:
        return container
    ended = pb.ContainerStatus()
    ended.CopyFrom(container)
    ended.state = pb.CONTAINER_EXITED
    ended.exit_code = EXIT_CODE_UNKNOWN
    ended.reason = REASON_STATUS_UNKNOWN
    ended.message = sandbox.message
    ended.finished_at_ns = sandbox.ended_at_ns or container.started_at_ns
    return ended
