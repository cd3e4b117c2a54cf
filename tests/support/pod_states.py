"""Observed states for tests of pure functions: sandboxes and runs in few words."""

from __future__ import annotations

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.annotations import RESOURCES
from vk_provider.pods.pod_state import PodState
from vk_provider.pods.resize import resources_note

NOW_NS = 1_700_000_000_000_000_000
READY, ENDED, STARTING = pb.SANDBOX_READY, pb.SANDBOX_NOT_READY, pb.SANDBOX_STARTING


def run(name: str, attempt: int = 0, *, exit_code: int | None = None) -> pb.ContainerStatus:
    """Return a run without limits that is running, or that exited with a code."""
    status = pb.ContainerStatus(
        container_id=f"{name}-{attempt}",
        name=name,
        attempt=attempt,
        state=pb.CONTAINER_RUNNING,
        image="registry.test/app:1",
        created_at_ns=NOW_NS + attempt,
        started_at_ns=NOW_NS + attempt,
        annotations={RESOURCES: resources_note({})},
    )
    if exit_code is not None:
        status.state = pb.CONTAINER_EXITED
        status.exit_code = exit_code
        status.finished_at_ns = NOW_NS + attempt + 1
    return status


def sandbox(
    *runs: pb.ContainerStatus, attempt: int = 0, state: pb.SandboxState.ValueType = READY
) -> pb.SandboxStatus:
    """Return a sandbox with the given runs in it."""
    id_ = f"sandbox-{attempt}"
    for each in runs:
        each.sandbox_id = id_
    return pb.SandboxStatus(
        sandbox_id=id_, attempt=attempt, state=state, containers=runs, ips=["10.1.0.1"]
    )


def state(*sandboxes: pb.SandboxStatus) -> PodState:
    """Return the state made of the given sandboxes."""
    return PodState.of(sandboxes)
