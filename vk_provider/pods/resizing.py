"""One pod's resizes: what it has been given, and the conditions and events that tell of a change.

Nothing of it is lost with this process: what was given and made is in the notes of the pod's VM and
runs, and what was only given in the condition that a resize is in progress.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vk_provider.common.clock import Clock
from vk_provider.pods.admission import Rejection
from vk_provider.pods.pod_state import PodState
from vk_provider.pods.podspec import Pod
from vk_provider.pods.recorder import Recorder
from vk_provider.pods.resize import (
    Pending,
    allocation_of,
    beyond_vm,
    differs,
    in_progress,
    noted_allocation,
    shown_allocation,
    summary,
    with_allocation,
)
from vk_provider.pods.status.conditions import RESIZE
from vk_provider.pods.status.times import to_api

PENDING, IN_PROGRESS = RESIZE

_TIMES = ("lastTransitionTime", "lastProbeTime")
_RETRY_NS = 10_000_000_000

Fit = Callable[[Pod], Rejection | None]


class Resizing:
    """See the module. `conditions`: those in force, by type.

    `fit` says why the node has no room for a pod of that size, None where it has.
    """

    def __init__(
        self, pod: Pod, recorder: Recorder, clock: Clock, fit: Fit, *, was_admitted: bool
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._fit = fit
        self._allocation = shown_allocation(pod) if was_admitted else allocation_of(pod)
        self._recovered = not was_admitted
        self.conditions: dict[str, dict[str, Any]] = {
            str(c["type"]): dict(c)
            for c in (pod.get("status") or {}).get("conditions") or ()
            if c["type"] in RESIZE
        }
        self.retry_at_ns = 0
        """When a change that failed is tried again."""

    def recover(self, pod: Pod, state: PodState) -> None:
        """Take up what an earlier process gave, once the runtime's records are read."""
        if self._recovered:
            return
        self._recovered = True
        given = self.conditions.get(IN_PROGRESS, {}).get("observedGeneration")
        if given is not None and given == pod["metadata"].get("generation"):
            self._allocation = allocation_of(pod)
        else:
            self._allocation |= noted_allocation(pod, state)

    def apply(self, pod: Pod) -> Pod:
        """Return the pod with the resources that it has been given."""
        return with_allocation(pod, self._allocation)

    @property
    def deferred(self) -> bool:
        """Whether there may be room later for what the pod asks for."""
        return self.conditions.get(PENDING, {}).get("reason") == "Deferred"

    def decide(self, pod: Pod, state: PodState) -> bool:
        """Give the pod what it asks for, or show why not; True where its allocation changed."""
        if not differs(pod, self._allocation):
            self.conditions.pop(PENDING, None)
            return False
        generation = int(pod["metadata"].get("generation") or 0)
        pending = beyond_vm(pod, self.apply(pod), state.sandbox)
        if pending is None and (rejection := self._fit(pod)) is not None:
            pending = Pending("Deferred", rejection.message)
        if pending is None:
            self._allocation = allocation_of(pod)
            self.retry_at_ns = 0
            self.conditions.clear()
            self._set(IN_PROGRESS, generation)
            self._tell(pod, "Normal", "ResizeStarted", "Pod resize started", generation)
            return True
        before = self.conditions.get(PENDING, {})
        if self._set(PENDING, generation, pending.reason, pending.message):
            same = before.get("reason") == pending.reason
            if not same or before.get("observedGeneration") != generation:
                what = f"Pod resize {pending.reason}"
                reason = f"Resize{pending.reason}"
                self._tell(pod, "Warning", reason, what, generation, pending.message)
        return False

    def failed(self, pod: Pod, message: str) -> None:
        """Note that a container could not be changed; it is tried again after a while."""
        self.retry_at_ns = self._clock.now_ns() + _RETRY_NS
        generation = self._generation(pod)
        if self._set(IN_PROGRESS, generation, "Error", message):
            self._tell(pod, "Warning", "ResizeError", "Pod resize error", generation, message)

    def observe(self, pod: Pod, state: PodState) -> None:
        """Note whether all running containers have what the pod was given."""
        if in_progress(pod, state):
            if IN_PROGRESS not in self.conditions:
                self._set(IN_PROGRESS, self._generation(pod))
        elif IN_PROGRESS in self.conditions:
            generation = self._generation(pod)
            del self.conditions[IN_PROGRESS]
            self._tell(pod, "Normal", "ResizeCompleted", "Pod resize completed", generation)

    def _generation(self, pod: Pod) -> int:
        """Return the generation of the resize that is being made."""
        shown = self.conditions.get(IN_PROGRESS, {}).get("observedGeneration")
        return int(shown or pod["metadata"].get("generation") or 0)

    def _set(self, type_: str, generation: int, reason: str = "", message: str = "") -> bool:
        """Have a condition in force; False where it was so already."""
        new: dict[str, Any] = {"type": type_, "status": "True"}
        told: Mapping[str, Any] = {
            "observedGeneration": generation,
            "reason": reason,
            "message": message,
        }
        new |= {key: value for key, value in told.items() if value}
        old = self.conditions.get(type_, {})
        if new == {key: value for key, value in old.items() if key not in _TIMES}:
            return False
        now = to_api(self._clock.now_ns())
        new["lastTransitionTime"] = old.get("lastTransitionTime") or now
        self.conditions[type_] = new
        return True

    def _tell(
        self, pod: Pod, kind: Any, reason: str, what: str, generation: int, error: str = ""
    ) -> None:
        self._recorder.event(pod, kind, reason, f"{what}: {summary(pod, generation, error)}")
