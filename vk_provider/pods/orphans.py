"""Ends and removes what the runtime holds of pods that the API no longer knows.

An orphan is known by its UID, and only after the API's full list has come: a pod is never taken
for one because somebody was slow or away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import Clock
from vk_provider.common.errors import NotFound, VkError
from vk_provider.common.logging import get_logger
from vk_provider.pods.annotations import GRACE_PERIOD
from vk_provider.pods.pod_state import PodState
from vk_provider.runtime.api import Runtime

_DEFAULT_GRACE_S = 30
_LEAST_GRACE_S = 2
_RETRY_S = (1.0, 10.0)

log = get_logger("pods.orphans")


class OrphanCollector:
    """Sweeps when asked to. `is_known` says whether a pod of that UID has a worker."""

    def __init__(self, runtime: Runtime, clock: Clock, is_known: Callable[[str], bool]) -> None:
        self._runtime = runtime
        self._clock = clock
        self._is_known = is_known
        self._wanted = asyncio.Event()

    def sweep(self) -> None:
        """Look for orphans: the API's full list has just come, or events were missed since."""
        self._wanted.set()

    async def run(self) -> None:
        """Sweep whenever asked, until cancelled."""
        pause_s = _RETRY_S[0]
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.sweep_now()
                pause_s = _RETRY_S[0]
            except* VkError as group:
                log.warning("orphans not removed yet", error=str(group.exceptions[0]))
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, _RETRY_S[1])
                self._wanted.set()

    async def sweep_now(self) -> None:
        """Return when the orphans of this moment are gone; raises what the runtime raises."""
        listed = await self._runtime.list_sandboxes()
        by_pod: dict[str, list[pb.SandboxStatus]] = {}
        for sandbox in listed.sandboxes:
            if not self._is_known(sandbox.pod.uid):
                by_pod.setdefault(sandbox.pod.uid, []).append(sandbox)
        async with asyncio.TaskGroup() as group:
            for uid, sandboxes in by_pod.items():
                group.create_task(self._remove(sandboxes), name=f"orphan/{uid}")

    async def _remove(self, sandboxes: Iterable[pb.SandboxStatus]) -> None:
        """Give what runs the grace that was noted for it, then remove every trace."""
        state = PodState.of(sandboxes)
        for sandbox in state.sandboxes:
            log.info(
                "removing a pod that the API does not know",
                pod=f"{sandbox.pod.namespace}/{sandbox.pod.name}",
                uid=sandbox.pod.uid,
                sandbox=sandbox.sandbox_id,
            )
        grace_s = _noted_grace_s(state)
        async with asyncio.TaskGroup() as group:
            for run in state.running():
                group.create_task(self._stop(run.container_id, grace_s), name="orphan/stop")
        for sandbox in state.sandboxes:
            with suppress(NotFound):
                await self._runtime.remove_sandbox(sandbox.sandbox_id)

    async def _stop(self, container_id: str, grace_s: int) -> None:
        with suppress(NotFound):
            await self._runtime.stop_container(container_id, grace_s)


def _noted_grace_s(state: PodState) -> int:
    noted = state.sandbox.annotations.get(GRACE_PERIOD, "") if state.sandbox else ""
    seconds = int(noted) if noted.isdigit() else _DEFAULT_GRACE_S
    return max(seconds, _LEAST_GRACE_S)
