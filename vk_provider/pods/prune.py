"""Which records of a pod nobody needs any more (kuberuntime_gc, by count instead of by time).

Kept are the present and the last run of each container: the status shows both, and `kubectl logs
--previous` reads the last one's log.
"""

from __future__ import annotations

from dataclasses import dataclass

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.pod_state import PodState

_KEPT_RUNS = 2


@dataclass(frozen=True, slots=True)
class Superseded:
    """Ids of what may be removed."""

    containers: tuple[str, ...]
    sandboxes: tuple[str, ...]


def superseded(state: PodState) -> Superseded:
    """Return the ended runs and the ended sandboxes that nothing refers to."""
    names = {c.name for c in state.containers}
    kept = {c.container_id for name in names for c in state.history(name)[:_KEPT_RUNS]}
    old = [
        sandbox
        for sandbox in state.sandboxes[1:]
        if sandbox.state == pb.SANDBOX_NOT_READY
        and not kept & {c.container_id for c in sandbox.containers}
    ]
    leaving = {sandbox.sandbox_id for sandbox in old}
    runs = [
        c.container_id
        for c in state.active
        if c.container_id not in kept
        and c.state == pb.CONTAINER_EXITED
        and c.sandbox_id not in leaving
    ]
    return Superseded(tuple(runs), tuple(s.sandbox_id for s in old))
