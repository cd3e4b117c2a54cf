"""Ending containers: preStop, stop signal, grace, SIGKILL (kubelet killContainer).

Grace is one deadline for a pod, shared by all its containers, and only ever moves forward.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import Clock
from vk_provider.common.errors import NotFound
from vk_provider.common.logging import get_logger
from vk_provider.pods.errors import HookError
from vk_provider.pods.hooks import run_hook
from vk_provider.pods.podspec import (
    Container,
    Pod,
    all_containers,
    app_containers,
    describe,
    init_containers,
    is_sidecar,
)
from vk_provider.pods.recorder import Recorder, field_path
from vk_provider.runtime.api import Runtime

_LEAST_GRACE_S = 2  # kubelet minimumGracePeriodInSeconds: no SIGKILL out of the blue

log = get_logger("pods.killing")


class Grace:
    """A deadline that can be brought forward while others wait for it."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + seconds
        self.changed = asyncio.Event()

    def remaining_s(self) -> float:
        """Return the seconds left, 0 or more."""
        return max(self._end - self._clock.monotonic(), 0.0)

    def shorten(self, seconds: float) -> bool:
        """Let it end in `seconds` from now if that is earlier; True where it changed."""
        end = self._clock.monotonic() + seconds
        if end >= self._end:
            return False
        self._end = end
        self.changed.set()
        self.changed = asyncio.Event()
        return True

    async def wait(self, event: asyncio.Event) -> bool:
        """Return when the event is set (True) or the grace is over (False)."""
        while not event.is_set():
            left = self.remaining_s()
            if left <= 0:
                return False
            await _first_of(event, self.changed, self._clock, left)
        return True


class Ordering:
    """Sidecars end after the app containers, the last one first (terminationOrdering)."""

    def __init__(self, pod: Pod, running: Sequence[str]) -> None:
        self._done = {name: asyncio.Event() for name in running}
        self._before: dict[str, list[asyncio.Event]] = {}
        apps = [self._done[n] for c in app_containers(pod) if (n := str(c["name"])) in self._done]
        later: list[asyncio.Event] = []
        for container in reversed(init_containers(pod)):
            name = str(container["name"])
            if is_sidecar(container) and name in self._done:
                self._before[name] = [*apps, *later]
                later = [self._done[name]]

    async def wait_turn(self, name: str, grace: Grace) -> None:
        """Return once everything that ends before `name` has, or the grace is over."""
        for event in self._before.get(name, ()):
            if not await grace.wait(event):
                return

    def ended(self, name: str) -> None:
        """Take note that a container has ended."""
        if name in self._done:
            self._done[name].set()


@dataclass(frozen=True, slots=True)
class Killer:
    """Ends containers of one runtime."""

    runtime: Runtime
    recorder: Recorder
    clock: Clock

    async def kill(
        self,
        pod: Pod,
        status: pb.ContainerStatus,
        grace: Grace,
        *,
        pod_ip: str,
        message: str = "",
        ordering: Ordering | None = None,
    ) -> None:
        """End one container and return when it has exited. One that is gone has ended.

        Cancelling gives up waiting; what was signalled stays signalled.
        """
        name = status.name
        text = message or f"Stopping container {name}"
        self.recorder.event(pod, "Normal", "Killing", text, field_path=field_path(pod, name))
        container = next((c for c in all_containers(pod) if c["name"] == name), None)
        handler = ((container or {}).get("lifecycle") or {}).get("preStop")
        if container is not None and handler and grace.remaining_s() > 0:
            await self._pre_stop(pod, container, status.container_id, handler, grace, pod_ip)
        if ordering is not None:
            await ordering.wait_turn(name, grace)
        await self._stop(status.container_id, grace)
        if ordering is not None:
            ordering.ended(name)

    async def kill_all(
        self, pod: Pod, running: Sequence[pb.ContainerStatus], grace: Grace, *, pod_ip: str
    ) -> None:
        """End all the given containers side by side, sidecars in their order."""
        ordering = Ordering(pod, [status.name for status in running])
        async with asyncio.TaskGroup() as group:
            for status in running:
                group.create_task(
                    self.kill(pod, status, grace, pod_ip=pod_ip, ordering=ordering),
                    name=f"kill/{status.container_id}",
                )

    async def _pre_stop(
        self,
        pod: Pod,
        container: Container,
        container_id: str,
        handler: Mapping[str, Any],
        grace: Grace,
        pod_ip: str,
    ) -> None:
        done = asyncio.Event()

        async def hook() -> None:
            try:
                await run_hook(
                    self.runtime,
                    pod,
                    container,
                    container_id,
                    handler,
                    pod_ip=pod_ip,
                    timeout_s=None,
                    clock=self.clock,
                )
            except HookError as exc:
                # What a hook says may be secret: to the log, not into an event.
                log.warning("preStop hook failed", pod=describe(pod), error=str(exc))
                path = field_path(pod, str(container["name"]))
                self.recorder.event(
                    pod, "Warning", "FailedPreStopHook", "PreStopHook failed", field_path=path
                )
            finally:
                done.set()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(hook(), name=f"preStop/{container_id}")
            if not await grace.wait(done):
                task.cancel()

    async def _stop(self, container_id: str, grace: Grace) -> None:
        async with asyncio.TaskGroup() as group:
            ended = asyncio.Event()

            async def stop() -> None:
                seconds = max(math.ceil(grace.remaining_s()), _LEAST_GRACE_S)
                try:
                    await self.runtime.stop_container(container_id, seconds)
                except NotFound:
                    log.debug("container is gone already", container=container_id)
                ended.set()

            group.create_task(stop(), name=f"stop/{container_id}")
            while not ended.is_set():
                changed = grace.changed
                await _first_of(ended, changed)
                if not ended.is_set():
                    # A shorter grace: the runtime shortens the call that is under way.
                    group.create_task(stop(), name=f"stop/{container_id}")


async def _first_of(
    first: asyncio.Event, second: asyncio.Event, clock: Clock | None = None, limit_s: float = 0
) -> None:
    async with asyncio.TaskGroup() as group:
        waits: set[asyncio.Task[Any]] = {
            group.create_task(first.wait(), name="first-of/first"),
            group.create_task(second.wait(), name="first-of/second"),
        }
        if clock is not None:
            waits.add(group.create_task(clock.sleep(limit_s), name="first-of/time"))
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
