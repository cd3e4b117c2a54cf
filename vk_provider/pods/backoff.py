"""Delays that double: for crash loops and for image pulls (client-go `flowcontrol.Backoff`)."""

from __future__ import annotations

from dataclasses import dataclass

_NS = 1_000_000_000


@dataclass(slots=True)
class _Entry:
    delay_s: float
    updated_ns: int


class Backoff:
    """Remembers a delay for each key. Times are wall nanoseconds, given by the caller."""

    def __init__(self, initial_s: float = 10, maximum_s: float = 300) -> None:
        self._initial_s = initial_s
        self._maximum_s = maximum_s
        self._entries: dict[str, _Entry] = {}

    def delay_s(self, key: str) -> float:
        """Return the delay in force for the key, 0 for none."""
        entry = self._entries.get(key)
        return entry.delay_s if entry else 0

    def until_ns(self, key: str, event_ns: int) -> int:
        """Return until when the key waits after an event at `event_ns`; 0: it need not wait."""
        entry = self._entries.get(key)
        if entry is None or self._expired(entry, event_ns):
            return 0
        return event_ns + round(entry.delay_s * _NS)

    def retry_ns(self, key: str, now_ns: int) -> int:
        """Return until when the key waits, counted from its last failure; 0: it need not wait."""
        entry = self._entries.get(key)
        if entry is None or self._expired(entry, now_ns):
            return 0
        until = entry.updated_ns + round(entry.delay_s * _NS)
        return until if until > now_ns else 0

    def advance(self, key: str, event_ns: int, now_ns: int) -> None:
        """Double the key's delay; begin anew where the event lies two maxima after the last."""
        entry = self._entries.get(key)
        if entry is None or self._expired(entry, event_ns):
            self._entries[key] = _Entry(self._initial_s, now_ns)
            return
        entry.delay_s = min(entry.delay_s * 2, self._maximum_s)
        entry.updated_ns = now_ns

    def forget(self, prefix: str) -> None:
        """Drop every key that begins with `prefix`: of a pod that is gone."""
        for key in [k for k in self._entries if k.startswith(prefix)]:
            del self._entries[key]

    def _expired(self, entry: _Entry, event_ns: int) -> bool:
        return event_ns - entry.updated_ns > 2 * self._maximum_s * _NS
