"""Runs the probes of every container that runs, and keeps their results by container id.

Event-driven: a container's probes begin when it is reported running and end when it is reported
stopped. Until its startup probe has succeeded a container is not asked anything else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from vk_provider.common.clock import Clock
from vk_provider.pods.podspec import Pod, all_containers, uid_of
from vk_provider.pods.probes.checker import Target, probe_once
from vk_provider.pods.probes.metrics import ProbeMetrics
from vk_provider.pods.probes.model import (
    INITIAL_RESULTS,
    ProbeKind,
    ProbeResult,
    ProbeSpec,
    Tally,
)
from vk_provider.runtime.api import Runtime


@dataclass(frozen=True, slots=True)
class ProbeUpdate:
    """A result that differs from the one before."""

    pod_uid: str
    container_name: str
    container_id: str
    kind: ProbeKind
    result: ProbeResult


class EventSink(Protocol):
    """Where events go (kube.events.EventRecorder)."""

    def event(
        self,
        obj: Any,
        kind: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        /,
        *,
        field_path: str = "",
    ) -> None:
        """Record an event; never blocks."""
        ...


@dataclass(slots=True)
class _Probed:
    """A run of a container with its probes. Ends when `task` does."""

    target: Target
    started_at_ns: int
    specs: dict[ProbeKind, ProbeSpec]
    results: dict[ProbeKind, ProbeResult]
    task: asyncio.Task[None] | None = None
    stopped: bool = False
    workers: dict[ProbeKind, asyncio.Task[None]] = field(default_factory=dict)


class ProbeManager:
    """Owns a task for each probed container while `run` runs; `metrics` tell of their answers."""

    def __init__(
        self,
        runtime: Runtime,
        clock: Clock,
        *,
        recorder: EventSink,
        on_result: Callable[[ProbeUpdate], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._recorder = recorder
        self._on_result = on_result
        self._jitter = jitter
        self.metrics = ProbeMetrics()
        self._pods: dict[str, Pod] = {}
        self._probed: dict[tuple[str, str], _Probed] = {}
        self._quiet: set[str] = set()  # terminating: asked for readiness alone
        self._arrivals: asyncio.Queue[_Probed] = asyncio.Queue()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                probed = await self._arrivals.get()
                if not probed.stopped:
                    name = f"probes/{probed.target.container_id}"
                    probed.task = group.create_task(self._serve(probed), name=name)

    def add_pod(self, pod: Pod) -> None:
        """Take note of a pod, or of its new state; its containers are probed once they run."""
        self._pods[uid_of(pod)] = pod

    def remove_pod(self, pod_uid: str) -> None:
        """Forget a pod and all results; unknown ones are fine."""
        self._pods.pop(pod_uid, None)
        self._quiet.discard(pod_uid)
        for key in [key for key in self._probed if key[0] == pod_uid]:
            self._end(self._probed.pop(key))

    def container_running(
        self,
        pod_uid: str,
        container_name: str,
        container_id: str,
        started_at_ns: int,
        pod_ip: str,
        *,
        was_started: bool = False,
        was_ready: bool = False,
    ) -> None:
        """Begin to probe a run of a container; a repeated call, or one for a pod or container
        that is not known (any more), changes nothing.

        `was_started` and `was_ready` are what its status said before the node was restarted, so
        that a restart takes no pod out of its Services.
        """
        key = (pod_uid, container_name)
        known = self._probed.get(key)
        if known is not None and known.target.container_id == container_id:
            return
        pod = self._pods.get(pod_uid)
        named = (one for one in all_containers(pod) if one["name"] == container_name) if pod else ()
        container = next(iter(named), None)
        if pod is None or container is None:
            return
        if known is not None:
            self._stop(known)
        specs = {kind: spec for kind in ProbeKind if (spec := ProbeSpec.of(container, kind))}
        results = {kind: INITIAL_RESULTS[kind] for kind in specs}
        if was_started and ProbeKind.STARTUP in results:
            results[ProbeKind.STARTUP] = ProbeResult.SUCCESS
        if was_ready and ProbeKind.READINESS in results:
            results[ProbeKind.READINESS] = ProbeResult.SUCCESS
        target = Target(pod, container, container_id, pod_ip)
        probed = _Probed(target, started_at_ns, specs, results)
        self._probed[key] = probed
        if specs:
            self._arrivals.put_nowait(probed)

    def container_stopped(self, pod_uid: str, container_name: str) -> None:
        """End the probes of a container that has exited; unknown ones are fine."""
        probed = self._probed.pop((pod_uid, container_name), None)
        if probed is not None:
            self._end(probed)

    def stop_liveness_and_startup(self, pod_uid: str) -> None:
        """Ask a terminating pod for its readiness alone."""
        self._quiet.add(pod_uid)
        for (uid, _), probed in self._probed.items():
            if uid != pod_uid:
                continue
            for kind in (ProbeKind.LIVENESS, ProbeKind.STARTUP):
                if (worker := probed.workers.get(kind)) is not None:
                    worker.cancel()
                if kind is ProbeKind.LIVENESS and kind in probed.results:
                    probed.results[kind] = ProbeResult.SUCCESS

    def result(self, kind: ProbeKind, container_id: str) -> ProbeResult | None:
        """Return what is known of a run; None where it has no such probe or does not run."""
        for probed in self._probed.values():
            if probed.target.container_id == container_id:
                return probed.results.get(kind)
        return None

    def is_started(self, pod_uid: str, container_name: str, container_id: str) -> bool:
        """Say whether a running container counts as started."""
        results = self._results(pod_uid, container_name, container_id)
        if results is None:
            return ProbeKind.STARTUP not in self._declared(pod_uid, container_name)
        return results.get(ProbeKind.STARTUP, ProbeResult.SUCCESS) is ProbeResult.SUCCESS

    def is_ready(self, pod_uid: str, container_name: str, container_id: str) -> bool:
        """Say whether a running container counts as ready."""
        if not self.is_started(pod_uid, container_name, container_id):
            return False
        results = self._results(pod_uid, container_name, container_id)
        if results is None:
            return ProbeKind.READINESS not in self._declared(pod_uid, container_name)
        return results.get(ProbeKind.READINESS, ProbeResult.SUCCESS) is ProbeResult.SUCCESS

    def _results(
        self, pod_uid: str, container_name: str, container_id: str
    ) -> dict[ProbeKind, ProbeResult] | None:
        probed = self._probed.get((pod_uid, container_name))
        if probed is None or probed.target.container_id != container_id:
            return None
        return probed.results

    def _declared(self, pod_uid: str, container_name: str) -> set[ProbeKind]:
        pod = self._pods.get(pod_uid)
        for container in all_containers(pod) if pod else ():
            if container["name"] == container_name:
                return {kind for kind in ProbeKind if ProbeSpec.of(container, kind)}
        return set()

    def _end(self, probed: _Probed) -> None:
        self._stop(probed)
        self.metrics.forget(probed.target)

    @staticmethod
    def _stop(probed: _Probed) -> None:
        probed.stopped = True
        if probed.task is not None:
            probed.task.cancel()

    async def _serve(self, probed: _Probed) -> None:
        async with asyncio.TaskGroup() as group:
            startup = probed.specs.get(ProbeKind.STARTUP)
            if startup and probed.results[ProbeKind.STARTUP] is not ProbeResult.SUCCESS:
                self._start(group, probed, startup)
                if probed.workers:
                    await asyncio.wait(probed.workers.values())
                if probed.results[ProbeKind.STARTUP] is not ProbeResult.SUCCESS:
                    return  # failed, or the pod is going: nothing more is asked of this run
            for kind in (ProbeKind.READINESS, ProbeKind.LIVENESS):
                if kind in probed.specs:
                    self._start(group, probed, probed.specs[kind])

    def _start(self, group: asyncio.TaskGroup, probed: _Probed, spec: ProbeSpec) -> None:
        if uid_of(probed.target.pod) in self._quiet and spec.kind is not ProbeKind.READINESS:
            return
        name = f"probe/{spec.kind.value.lower()}/{probed.target.container_id}"
        probed.workers[spec.kind] = group.create_task(self._work(probed, spec), name=name)

    async def _work(self, probed: _Probed, spec: ProbeSpec) -> None:
        """Probe each period until the run's fate is decided or the task is cancelled."""
        if (wait_s := self._first_wait_s(probed, spec)) > 0:
            await self._clock.sleep(wait_s)
        tally = Tally(spec)
        while True:
            begun = self._clock.monotonic()
            found = await probe_once(self._runtime, spec, probed.target)
            if found.event is not None:
                self._record(probed, *found.event)
            decided = None
            if found.result is not None:
                took_s = self._clock.monotonic() - begun
                self.metrics.observe(probed.target, spec.kind, found.result, took_s)
                decided = tally.count(found.result)
            if decided is not None:
                self._set(probed, spec.kind, decided)
                if spec.kind is ProbeKind.STARTUP or (
                    spec.kind is ProbeKind.LIVENESS and decided is ProbeResult.FAILURE
                ):
                    return  # asked again only of the next run
            await self._clock.sleep(max(begun + spec.period_s - self._clock.monotonic(), 0))

    def _first_wait_s(self, probed: _Probed, spec: ProbeSpec) -> float:
        """Startup and readiness are asked as early as allowed, so that nobody waits for a tick.

        Liveness begins at a random part of its period, as the kubelet's ticks do: a container
        that has just begun gets time, and many of them are not asked at once.
        """
        age_s = max(self._clock.now_ns() - probed.started_at_ns, 0) / 1e9
        jitter_s = self._jitter() * spec.period_s if spec.kind is ProbeKind.LIVENESS else 0
        return max(spec.initial_delay_s - age_s, 0) + jitter_s

    def _set(self, probed: _Probed, kind: ProbeKind, result: ProbeResult) -> None:
        if probed.stopped or probed.results[kind] is result:
            return
        probed.results[kind] = result
        target = probed.target
        self._on_result(
            ProbeUpdate(
                uid_of(target.pod), target.container["name"], target.container_id, kind, result
            )
        )

    def _record(self, probed: _Probed, reason: str, message: str) -> None:
        pod, name = probed.target.pod, probed.target.container["name"]
        kind = "spec.containers"
        if any(one["name"] == name for one in pod["spec"].get("initContainers") or ()):
            kind = "spec.initContainers"
        self._recorder.event(pod, "Warning", reason, message, field_path=f"{kind}{{{name}}}")
