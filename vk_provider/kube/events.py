"""Events as a kubelet writes them: never waiting, counted up when they repeat."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from vk_provider.common.clock import Clock
from vk_provider.common.errors import DeadlineExceeded, NotFound, Unavailable, VkError
from vk_provider.common.logging import get_logger
from vk_provider.kube.client import KubeClient, Object
from vk_provider.kube.errors import ApiError
from vk_provider.kube.event_correlator import Correlator, Decision, Observation, Written

EventType = Literal["Normal", "Warning"]
_QUEUE = 1000
_TRIES = 12  # client-go maxTriesPerEvent; here, of those that the server answered
_PAUSE_S = (0.5, 10.0)
_MESSAGE_BYTES = 1024  # the API server's limit
_COMPONENT = "kubelet"  # dashboards and tests look for it

log = get_logger("kube.events")


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """What an event is about, where there is no object at hand."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    api_version: str = "v1"


class EventRecorder:
    """Writes events in the order they were recorded, by one task: `run()`."""

    def __init__(self, client: KubeClient, node_name: str, clock: Clock) -> None:
        self._client = client
        self._node_name = node_name
        self._clock = clock
        self._correlator = Correlator()
        self._queue: asyncio.Queue[tuple[Observation, int]] = asyncio.Queue(_QUEUE)
        self._dropped = 0

    def event(
        self,
        obj: Mapping[str, Any] | ObjectRef,
        type: EventType,  # noqa: A002 - the API's own name for it
        reason: str,
        message: str,
        *,
        field_path: str = "",
    ) -> None:
        """Record an event about an object (its kind may be missing: then it is a Pod).

        `field_path` names a part of it, `spec.containers{NAME}`. Returns at once; when the server
        has been away for so long that the queue is full, the event is dropped and counted.
        """
        seen = Observation(_reference(obj, field_path), type, reason, _cut(message))
        try:
            self._queue.put_nowait((seen, self._clock.now_ns()))
        except asyncio.QueueFull:
            self._dropped += 1
            log.warning("event dropped, the queue is full", reason=reason, dropped=self._dropped)

    async def run(self) -> None:
        """Write what is recorded, until cancelled."""
        while True:
            seen, at_ns = await self._queue.get()
            await self._write(seen, at_ns)
            self._queue.task_done()

    async def flush(self, timeout_s: float) -> None:
        """Wait until everything recorded is written (or given up), no longer than `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._queue.join()

    async def _write(self, seen: Observation, at_ns: int) -> None:
        decision = self._correlator.decide(seen, self._clock.monotonic())
        if decision is None:
            return
        pause = _PAUSE_S[0]
        answered = 0
        while answered < _TRIES:
            try:
                await self._send(seen, decision, at_ns)
                return
            except (Unavailable, DeadlineExceeded) as exc:
                # A server that is away, however long, costs no event; the queue bounds them.
                answered += isinstance(exc, ApiError)
                log.debug("event not written yet", reason=seen.reason, error=str(exc))
            except VkError as exc:
                # Among them: the namespace is being deleted, and takes no new events.
                log.info("event refused", reason=seen.reason, error=str(exc))
                return
            await self._clock.sleep(pause)
            pause = min(pause * 2, _PAUSE_S[1])
        log.warning("event given up", reason=seen.reason, message=seen.message)

    async def _send(self, seen: Observation, decision: Decision, at_ns: int) -> None:
        when = _rfc3339(at_ns)
        earlier = decision.earlier
        if earlier is not None:
            path = f"/api/v1/namespaces/{earlier.namespace}/events/{earlier.name}"
            patch: Object = {"count": earlier.count + 1, "lastTimestamp": when}
            if decision.message != seen.message:
                patch["message"] = _cut(decision.message)
            try:
                await self._client.patch(path, patch, kind="strategic")
                earlier.count += 1
                return
            except NotFound:
                self._correlator.forgotten(decision)
        reference = seen.reference
        namespace = reference.get("namespace") or "default"
        name = f"{reference['name']}.{at_ns:x}"
        body: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": reference,
            "type": seen.type,
            "reason": seen.reason,
            "message": _cut(decision.message),
            "source": {"component": _COMPONENT, "host": self._node_name},
            "reportingComponent": _COMPONENT,
            "reportingInstance": self._node_name,
            "firstTimestamp": when,
            "lastTimestamp": when,
            "count": 1,
        }
        await self._client.create(f"/api/v1/namespaces/{namespace}/events", body)
        self._correlator.written(decision, Written(namespace, name, 1))


def _reference(obj: Mapping[str, Any] | ObjectRef, field_path: str) -> tuple[tuple[str, str], ...]:
    if isinstance(obj, ObjectRef):
        fields = {
            "apiVersion": obj.api_version,
            "kind": obj.kind,
            "namespace": obj.namespace,
            "name": obj.name,
            "uid": obj.uid,
        }
    else:
        metadata = obj["metadata"]
        fields = {
            "apiVersion": obj.get("apiVersion") or "v1",
            "kind": obj.get("kind") or "Pod",
            "namespace": metadata.get("namespace", ""),
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
        }
    fields["fieldPath"] = field_path
    # No resourceVersion: it changes with each status, and two events about one pod are alike.
    return tuple(sorted((k, v) for k, v in fields.items() if v))


def _cut(message: str) -> str:
    data = message.encode(errors="replace")
    if len(data) <= _MESSAGE_BYTES:
        return message
    return data[: _MESSAGE_BYTES - 4].decode(errors="ignore") + " ..."


def _rfc3339(ns: int) -> str:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
