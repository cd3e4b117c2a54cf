"""Events for the node: a ring that every watcher reads at its own pace.

Sequence numbers begin at the wall clock, so those of a restarted agent lie above all earlier
ones, and a watcher that asks for earlier ones is told to list again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import Clock

KEPT = 4096


class EventHub:
    """Keeps the last `KEPT` events. Belongs to one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: deque[pb.Event] = deque(maxlen=KEPT)
        self.seq = clock.now_ns()
        """Of the newest event."""
        self._first = self.seq
        self._changed = asyncio.Event()

    def sandbox_changed(self, sandbox_id: str, pod_uid: str) -> None:
        self._add(pb.Event.SANDBOX_CHANGED, sandbox_id, "", pod_uid)

    def container_changed(self, sandbox_id: str, container_id: str, pod_uid: str) -> None:
        self._add(pb.Event.CONTAINER_CHANGED, sandbox_id, container_id, pod_uid)

    def host_changed(self) -> None:
        self._add(pb.Event.HOST_CHANGED, "", "", "")

    async def watch(self, after_seq: int) -> AsyncGenerator[pb.Event]:
        """Yield every event after that one, RESYNC in place of those no longer kept."""
        while True:
            oldest = self._events[0].seq if self._events else self.seq + 1
            if not max(self._first, oldest - 1) <= after_seq <= self.seq:
                after_seq = self.seq
                yield pb.Event(seq=after_seq, kind=pb.Event.RESYNC, time_ns=self._clock.now_ns())
                continue
            if after_seq == self.seq:
                await self._changed.wait()
                continue
            # Sequence numbers have no gaps, so the place follows from them.
            event = self._events[after_seq + 1 - oldest]
            after_seq = event.seq
            yield event

    def _add(
        self, kind: pb.Event.Kind.ValueType, sandbox_id: str, container_id: str, pod_uid: str
    ) -> None:
        self.seq += 1
        self._events.append(
            pb.Event(
                seq=self.seq,
                kind=kind,
                sandbox_id=sandbox_id,
                container_id=container_id,
                pod_uid=pod_uid,
                time_ns=self._clock.now_ns(),
            )
        )
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
