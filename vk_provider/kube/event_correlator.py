"""Which events to write, merge or hold back (client-go tools/record EventCorrelator); no I/O."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

_ENTRIES = 4096
_SIMILAR = 10  # so many texts of one kind within the interval; then they become one event
_INTERVAL_S = 600.0
_BURST = 25.0  # events about one object, refilled by one each five minutes
_REFILL_PER_S = 1 / 300

_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing that happened: to what, of which type and reason, in which words."""

    involved: tuple[tuple[str, str], ...]  # the object reference's fields, sorted
    type: str
    reason: str
    message: str

    @property
    def reference(self) -> dict[str, str]:
        return dict(self.involved)


@dataclass(slots=True)
class Written:
    """An event as the API server has it: enough to count it up by a patch."""

    namespace: str
    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do: the words to write, under which key, and what to count up if it is there."""

    key: tuple[Any, ...]
    message: str
    earlier: Written | None


@dataclass(slots=True)
class _Kind:
    messages: set[str] = field(default_factory=set)
    last: float = 0.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class _Recent(OrderedDict[Any, _V], Generic[_V]):
    """The most recently used entries."""

    def touch(self, key: Any, value: _V) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > _ENTRIES:
            self.popitem(last=False)


class Correlator:
    """Remembers what was said about which object."""

    def __init__(self) -> None:
        self._kinds: _Recent[_Kind] = _Recent()
        self._buckets: _Recent[_Bucket] = _Recent()
        self._written: _Recent[Written] = _Recent()

    def decide(self, seen: Observation, now: float) -> Decision | None:
        """Return what to write, None when too much was said about the object; `now` in seconds."""
        whole = tuple(pair for pair in seen.involved if pair[0] != "fieldPath")
        kind_key = (whole, seen.type, seen.reason)
        kind = self._kinds.get(kind_key)
        if kind is None or now - kind.last > _INTERVAL_S:
            kind = _Kind()
        kind.messages.add(seen.message)
        kind.last = now
        self._kinds.touch(kind_key, kind)
        if len(kind.messages) < _SIMILAR:
            key: tuple[Any, ...] = (seen.involved, seen.type, seen.reason, seen.message)
            message = seen.message
        else:
            kind.messages.discard(next(iter(kind.messages - {seen.message})))
            key = (*kind_key, "similar")
            message = f"(combined from similar events): {seen.message}"
        if not self._allowed((whole, seen.type), now):
            return None
        return Decision(key, message, self._written.get(key))

    def written(self, decision: Decision, event: Written) -> None:
        """Note that the server has it."""
        self._written.touch(decision.key, event)

    def forgotten(self, decision: Decision) -> None:
        """Note that the server has dropped it (events live an hour)."""
        self._written.pop(decision.key, None)

    def _allowed(self, key: tuple[Any, ...], now: float) -> bool:
        bucket = self._buckets.get(key) or _Bucket(_BURST, now)
        bucket.tokens = min(_BURST, bucket.tokens + (now - bucket.at) * _REFILL_PER_S)
        bucket.at = now
        allowed = bucket.tokens >= 1
        if allowed:
            bucket.tokens -= 1
        self._buckets.touch(key, bucket)
        return allowed
