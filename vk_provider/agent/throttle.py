"""A bound on how often a guest is listened to, so that one that floods slows itself alone."""

from __future__ import annotations

from vk_provider.common.clock import Clock


class Throttle:
    """Allows `burst` messages each `window_s`; what is more waits in the connection's buffers.

    gRPC's flow control then holds the sender: nothing piles up here.
    """

    def __init__(self, clock: Clock, burst: int, window_s: float = 1.0) -> None:
        self._clock = clock
        self._burst = burst
        self._window_s = window_s
        self._began = clock.monotonic()
        self._seen = 0

    async def pass_one(self) -> None:
        """Call for each message; sleeps until the next window when there were too many."""
        now = self._clock.monotonic()
        if now - self._began >= self._window_s:
            self._began, self._seen = now, 0
        self._seen += 1
        if self._seen > self._burst:
            await self._clock.sleep(self._began + self._window_s - now)
            self._began, self._seen = self._clock.monotonic(), 1
