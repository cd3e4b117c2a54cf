"""Keeps a guest's wall clock on the host's.

A guest counts the host's TSC at a frequency that was measured once, stands still while its VM is
held, and begins where its template ended. So it is asked what time it has, and told how far that
is off: a difference, which no delay on the way to the guest makes wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

from vk_provider._pb import guest_pb2
from vk_provider.agent.guest import PROTOCOL_VERSION
from vk_provider.agent.guest_calls import CALL_S, ask
from vk_provider.agent.ports import Guest
from vk_provider.agent.sandbox import Sandbox
from vk_provider.common.clock import Clock, sleep_until_set
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger

_log = get_logger("agent.clock")

_GOOD_DOUBT_NS = 10_000_000
"""A reading so exact is taken at its word."""
_TRIES = 8
_LEAST_NS = 1_000_000
"""A smaller difference is left alone."""
_STEP_FROM_NS = 25_000_000
"""Above that a clock is set at once, also back; below, the guest slews it."""
_EACH_S = 60.0
_SOON_S = 10.0
"""After a reading that was not exact."""
_LEAST_PAUSE_S = 5.0
_SUSPICIOUS_NS = 2_000_000_000
"""Less may be for no other reason than that a sample was long on its way."""
_MOST_NS = 2**62


@dataclass(frozen=True)
class Reading:
    """How far a guest's clock is ahead of the host's; the truth is within `doubt_ns` of it."""

    ahead_ns: int
    doubt_ns: int

    @classmethod
    def of(cls, before_ns: int, guest_ns: int, after_ns: int) -> Reading:
        """before, after: the host's clock around the call that the guest answered."""
        ahead = guest_ns - (before_ns + after_ns) // 2
        return cls(max(-_MOST_NS, min(_MOST_NS, ahead)), abs(after_ns - before_ns) // 2)

    @property
    def exact(self) -> bool:
        return self.doubt_ns <= _GOOD_DOUBT_NS

    @property
    def correction_ns(self) -> int:
        """By how much to put the guest's clock forward; 0 where it may well be right.

        Where the answer was slow, on a busy host, only what is sure: more would make a clock that
        is nearly right wrong.
        """
        wrong = abs(self.ahead_ns) - (0 if self.exact else self.doubt_ns)
        if wrong <= max(_LEAST_NS, self.doubt_ns if self.exact else 0):
            return 0
        return -wrong if self.ahead_ns > 0 else wrong


async def read_clock(clock: Clock, guest: Guest) -> Reading:
    """Ask the guest for its time until an answer comes fast enough to be exact; else the best."""
    best: Reading | None = None
    request = guest_pb2.HelloRequest(protocol_version=PROTOCOL_VERSION)
    for _ in range(_TRIES):
        before = clock.now_ns()
        answer = await ask(
            guest.control.Hello(request, timeout=CALL_S), "asking a guest for its time"
        )
        reading = Reading.of(before, answer.clock_ns, clock.now_ns())
        if best is None or reading.doubt_ns < best.doubt_ns:
            best = reading
        if best.exact:
            break
    assert best is not None
    return best


async def set_right(clock: Clock, guest: Guest, *, at_once: bool) -> Reading:
    """Have the guest's clock go as the host's does; return how far it was off.

    at_once: also a small difference, since nothing runs yet that could see time go back.
    """
    reading = await read_clock(clock, guest)
    if reading.correction_ns:
        change: Awaitable[guest_pb2.SetClockResponse] = guest.control.SetClock(
            guest_pb2.SetClockRequest(
                clock_ns=clock.now_ns(),  # for guests that know nothing of the rest
                adjust_ns=reading.correction_ns,
                slew=not at_once and abs(reading.correction_ns) < _STEP_FROM_NS,
            ),
            timeout=CALL_S,
        )
        await ask(change, "setting a guest's clock")
    return reading


async def keep_right(clock: Clock, sandbox: Sandbox, guest: Guest) -> None:
    """Look after a guest's clock, now and then and when `sandbox.clock_doubted` is set."""
    pause_s = _EACH_S
    while True:
        await sleep_until_set(clock, pause_s, sandbox.clock_doubted)
        sandbox.clock_doubted.clear()
        try:
            found = await set_right(clock, guest, at_once=False)
        except VkError as exc:
            # It may be held, or have no connection for a moment. What that means others see to.
            _log.debug("a guest's clock was not read", sandbox=sandbox.id, why=str(exc))
        else:
            pause_s = _EACH_S if found.exact else _SOON_S
            if abs(found.correction_ns) >= _STEP_FROM_NS:
                forward_s = round(found.correction_ns / 1e9, 3)
                _log.info("set a guest's clock", sandbox=sandbox.id, forward_s=forward_s)
        # Samples that were under way meanwhile, or a guest that lies, ask for no more than that.
        await clock.sleep(_LEAST_PAUSE_S)


def doubt(sandbox: Sandbox, guest_ns: int, now_ns: int) -> None:
    """Have the clock looked at soon when a sample of the guest's says that it is off."""
    if abs(guest_ns - now_ns) > _SUSPICIOUS_NS:
        sandbox.clock_doubted.set()
