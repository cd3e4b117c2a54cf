"""A guest's clock: how sure a reading is, and what is done about one that is off."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from tests.support.fake_clock import FakeClock
from tests.unit.agent.agent_world import SANDBOX, World, run_request
from vk_provider._pb import guest_pb2 as pb
from vk_provider._pb.sandbox_pb2 import SandboxStatus
from vk_provider.agent.adoption import adopt_all
from vk_provider.agent.guest_clock import Reading, doubt, keep_right, set_right
from vk_provider.agent.records import SandboxRecord
from vk_provider.agent.sandbox import Sandbox
from vk_provider.agent.sandboxes import run_sandbox

MS = 1_000_000
HOUR = 3_600_000 * MS


class StubGuest:
    """Answers at once by a clock that is off; `delays` are seconds before and after an answer."""

    def __init__(self, clock: FakeClock, ahead_ns: int) -> None:
        self.control = self.bulk = cast("Any", self)
        self.ahead_ns = ahead_ns
        self.delays: list[tuple[float, float]] = []
        self.changes: list[pb.SetClockRequest] = []
        self._clock = clock

    async def Hello(self, request: pb.HelloRequest, timeout: float) -> pb.HelloResponse:  # noqa: N802
        if not self.delays:
            return pb.HelloResponse(clock_ns=self._clock.now_ns() + self.ahead_ns)
        before, after = self.delays.pop(0)
        await self._clock.advance(before)
        now = self._clock.now_ns() + self.ahead_ns
        await self._clock.advance(after)
        return pb.HelloResponse(clock_ns=now)

    async def SetClock(  # noqa: N802
        self,
        request: pb.SetClockRequest,
        timeout: float,
    ) -> pb.SetClockResponse:
        self.changes.append(request)
        self.ahead_ns += request.adjust_ns
        return pb.SetClockResponse()

    async def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("before", "guest", "after", "correction"),
    [
        (0, 5 * MS, 10 * MS, 0),
        (0, 9 * MS, 10 * MS, 0),  # it may have been read at the very end
        (0, 15 * MS, 10 * MS, -10 * MS),
        (0, -90 * MS, 2 * MS, 91 * MS),
        (0, MS // 2, 0, 0),
        (0, 390 * MS, 400 * MS, 0),  # slow: it may have been read at the very end
        (0, 700 * MS, 400 * MS, -300 * MS),  # and only so much is sure
        (0, -HOUR, 400 * MS, HOUR),
    ],
)
def test_only_what_is_surely_wrong_is_changed(
    before: int, guest: int, after: int, correction: int
) -> None:
    assert Reading.of(before, guest, after).correction_ns == correction


def test_an_absurd_clock_is_still_a_number_to_send() -> None:
    for absurd in (2**63 - 1, -(2**63)):
        reading = Reading.of(1_800_000_000 * 10**9, absurd, 1_800_000_000 * 10**9)
        assert 0 < abs(reading.correction_ns) < 2**63


@pytest.mark.parametrize(
    ("ahead_ns", "at_once", "slew"),
    [
        (20 * MS, False, True),
        (20 * MS, True, False),
        (-30 * MS, False, False),
        (-HOUR, False, False),
    ],
)
async def test_time_goes_back_only_where_it_must(ahead_ns: int, at_once: bool, slew: bool) -> None:
    clock = FakeClock()
    guest = StubGuest(clock, ahead_ns)
    await set_right(clock, guest, at_once=at_once)
    assert [change.slew for change in guest.changes] == [slew]
    assert guest.ahead_ns == 0


async def test_the_quickest_answer_counts() -> None:
    clock = FakeClock()
    guest = StubGuest(clock, 40 * MS)
    guest.delays = [(0.5, 0.0), (0.0, 0.01), (0.0, 2.0), (0.3, 0.3)]
    reading = await set_right(clock, guest, at_once=False)
    assert (reading.ahead_ns, reading.doubt_ns) == (35 * MS, 5 * MS)
    guest.ahead_ns = 0
    # A host too busy to know better does not make a right clock wrong.
    guest.delays = [(1.0, 0.2)] * 8
    await set_right(clock, guest, at_once=False)
    assert guest.ahead_ns == 0


async def test_it_is_looked_at_each_minute_and_when_a_sample_is_off() -> None:
    clock = FakeClock()
    guest = StubGuest(clock, -10 * MS)
    sandbox = Sandbox(SandboxRecord(SandboxStatus(), uid=1))
    task = asyncio.create_task(keep_right(clock, sandbox, guest))
    await clock.advance(59)
    assert guest.changes == []
    await clock.advance(2)
    assert len(guest.changes) == 1
    doubt(sandbox, clock.now_ns() - 100 * MS, clock.now_ns())  # it may just have come late
    guest.ahead_ns = -HOUR
    await clock.advance(10)
    assert len(guest.changes) == 1
    doubt(sandbox, clock.now_ns() + guest.ahead_ns, clock.now_ns())
    await clock.settle()
    assert len(guest.changes) == 2
    task.cancel()


async def test_new_and_adopted_guests_get_the_hosts_time(world: World) -> None:
    world.guest.clock_ahead_ns = -HOUR
    async with world.agent() as context:
        await run_sandbox(context, run_request())
        assert not world.guest.clock_changes[0].slew
    world.guest.clock_changes.clear()
    world.guest.clock_ahead_ns = HOUR
    async with world.agent() as context:
        await adopt_all(context)
        while not world.guest.clock_changes:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert context.sandbox(SANDBOX).machine is not None
        assert world.guest.clock_changes[0].adjust_ns < 0
