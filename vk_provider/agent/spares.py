"""VMs that are kept ready: restored, rehearsed and idle, until a sandbox of their shape takes one.

They are of the shapes that were wanted last, so many of each. They belong to this process alone:
no record names them, so what a killed agent leaves of them is removed by the next one as nobody's.
They are given back when the host's memory runs short.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter, deque
from dataclasses import dataclass

import psutil

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.booting import Seed, boot
from vk_provider.agent.context import Context
from vk_provider.agent.ending import leave_nothing
from vk_provider.agent.phases import Phases
from vk_provider.agent.ports import Machine
from vk_provider.agent.rehearsal import rehearse
from vk_provider.agent.settings import MIB
from vk_provider.agent.shapes import usual_shapes
from vk_provider.common.errors import Unavailable, VkError
from vk_provider.common.logging import get_logger

_log = get_logger("agent.spares")

_RETRY_S = 10.0
_REHEARSALS = 2
"""After one a start takes 0.16 s, after two 0.1 s; who has none ready wants one soon."""
_GIVE_BACK_BELOW = 0.1
"""The available part of the host's memory below which all spares end."""
_MAKE_ABOVE = 0.25
"""The part above which one is made; far from the other, for ending them makes room."""


@dataclass(eq=False)
class Spare:
    """A VM nobody has yet. found: what the hypervisor finds it again by. phases: of its making."""

    seed: Seed
    found: str
    machine: Machine
    phases: Phases


@dataclass(eq=False)
class _Making:
    """A VM on its way. done: the spare, or None where it failed. awaited: a pod waits for it."""

    seed: Seed
    done: asyncio.Future[Spare | None]
    machine: Machine | None = None
    awaited: bool = False


class Spares:
    """Keeps `settings.spare_vms` VMs of the shapes that were wanted last. `run` is a task's."""

    def __init__(self, context: Context) -> None:
        self._context = context
        count = context.settings.spare_vms
        self._wanted = deque([usual_shapes(context.sizes)[0]] * count, maxlen=count)
        self._ready: list[Spare] = []
        self._making: _Making | None = None
        self._starting: set[str] = set()
        self._news = asyncio.Event()

    @property
    def ready(self) -> int:
        """How many there are now."""
        return len(self._ready)

    async def take(self, shape: pb.Shape, scratch_bytes: int) -> Spare | None:
        """Return a VM of that shape with such a disk, None where there is none to be had.

        The one in the making is waited for by whoever asks first: it is there sooner than another.
        """
        self._news.set()
        if scratch_bytes == self._context.settings.scratch_bytes:
            self._wanted.append(shape)
        for spare in self._ready:
            vm = spare.machine.vm
            if _fits(spare.seed, shape, scratch_bytes) and not (vm.gone or vm.held):
                self._ready.remove(spare)
                return self._handed_over(spare)
        making = self._making
        if making is None or making.awaited or not _fits(making.seed, shape, scratch_bytes):
            return None
        making.awaited = True
        if making.machine is not None:
            making.machine.vm.claim_cpu()
        try:
            made = await asyncio.shield(making.done)
        except asyncio.CancelledError:
            making.awaited = False
            if making.done.done() and (unclaimed := making.done.result()) is not None:
                self._ready.append(unclaimed)
            raise
        return self._handed_over(made) if made is not None else None

    def _handed_over(self, spare: Spare) -> Spare:
        self._context.reserved_uids.discard(spare.seed.uid)
        spare.machine.vm.claim_cpu()
        return spare

    def start_begins(self, sandbox_id: str) -> None:
        """Make no spare from now on: a pod that starts has the first claim to the CPU."""
        self._starting.add(sandbox_id)

    def start_ends(self, sandbox_id: str, after_s: float = 0.0) -> None:
        """Take note that a pod has started, or has after so long; may be told more than once."""
        if after_s:
            asyncio.get_running_loop().call_later(after_s, self.start_ends, sandbox_id)
            return
        self._starting.discard(sandbox_id)
        self._news.set()

    async def run(self) -> None:
        """Keep VMs ready until cancelled; then end those that nobody took."""
        context = self._context
        self._news.set()
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                try:
                    await self._bring_about()
                except (VkError, OSError) as exc:
                    _log.warning("no VM could be made ready", why=str(exc), retry_s=_RETRY_S)
                    await context.clock.sleep(_RETRY_S)
                    self._news.set()
        finally:
            await asyncio.shield(self._give_back(self._ready))

    def look(self) -> None:
        """Look again: a second has passed, and the host's memory may have changed."""
        gone = any(s.machine.vm.gone for s in self._ready)
        short = self._ready and _available() < _GIVE_BACK_BELOW
        lacking = len(self._ready) < self._context.settings.spare_vms
        if short:
            # Not by `run`, which may be busy making one, or wait for its next try.
            self._context.spawn(self._give_back_all(), "giving VMs back that were kept ready")
        if gone or (lacking and self._may_make()):
            self._news.set()

    def _may_make(self) -> bool:
        return not self._starting and _available() >= _MAKE_ABOVE

    async def _bring_about(self) -> None:
        await self._give_back([s for s in self._ready if s.machine.vm.gone])
        while (missing := self._missing()) is not None:
            if not self._may_make():
                return
            await self._give_back(self._unwanted()[:1])
            await self._make(missing)

    def _missing(self) -> pb.Shape | None:
        """Return the shape to make next: of those with too few, the one wanted last."""
        there = Counter(_key(s.seed.shape) for s in self._ready)
        wanted = Counter(map(_key, self._wanted))
        return next((s for s in reversed(self._wanted) if wanted[_key(s)] > there[_key(s)]), None)

    def _unwanted(self) -> list[Spare]:
        """Return those of which there are more than wanted; each makes room for one that is."""
        left = Counter(map(_key, self._wanted))
        over = []
        for spare in self._ready:
            left[_key(spare.seed.shape)] -= 1
            if left[_key(spare.seed.shape)] < 0:
                over.append(spare)
        return over

    async def _give_back_all(self) -> None:
        _log.info("the host's memory is short: giving back the VMs that were kept ready")
        await self._give_back(self._ready)

    async def _give_back(self, spares: list[Spare]) -> None:
        # None may be taken while another one ends.
        self._ready = [s for s in self._ready if s not in spares]
        await asyncio.gather(*(_end(self._context, s.seed, s.machine) for s in spares))

    async def _make(self, shape: pb.Shape) -> None:
        context = self._context
        if not await context.machines.prepare(shape.vcpus, shape.memory_bytes // MIB):
            raise Unavailable("there is no template to restore it from")
        uid = context.free_uid()
        seed = Seed(uuid.uuid4().hex, uid, shape, context.settings.scratch_bytes)
        context.reserved_uids.add(uid)
        began = context.clock.monotonic()
        making = self._making = _Making(seed, asyncio.get_running_loop().create_future())
        found: list[str] = []
        phases = Phases()

        def on_machine(machine: Machine) -> None:
            making.machine = machine
            if not making.awaited:
                machine.vm.yield_cpu()

        try:
            with phases.step("tap"):
                tap = await context.network.open_tap(seed.machine_id)
            await boot(context, seed, tap, phases, found.append, on_machine)
            assert making.machine is not None
            for _ in range(_REHEARSALS if self._ready else 1):
                if making.awaited:
                    break  # as it is it serves the pod sooner
                with phases.step("rehearsal"):
                    await rehearse(making.machine)
        except BaseException:
            making.done.set_result(None)
            await asyncio.shield(_end(context, seed, making.machine))
            raise
        finally:
            self._making = None
        took_s = round(context.clock.monotonic() - began, 2)
        _log.debug("a VM is ready for the next pod", machine=seed.machine_id, seconds=took_s)
        spare = Spare(seed, found[-1], making.machine, phases)
        if not making.awaited:
            self._ready.append(spare)
        making.done.set_result(spare)


async def _end(context: Context, seed: Seed, machine: Machine | None) -> None:
    """Leave nothing of a VM that nobody took; its user is free once it is gone."""
    try:
        if machine is not None:
            await machine.end()
        await leave_nothing(context, seed.machine_id)
        context.reserved_uids.discard(seed.uid)
    except (VkError, OSError) as exc:
        _log.warning("a VM that was kept ready is left to the next agent's start", why=str(exc))


def _fits(seed: Seed, shape: pb.Shape, scratch_bytes: int) -> bool:
    return _key(seed.shape) == _key(shape) and seed.scratch_bytes == scratch_bytes


def _key(shape: pb.Shape) -> tuple[int, int, int]:
    return shape.vcpus, shape.cpu_milli, shape.memory_bytes


def _available() -> float:
    memory = psutil.virtual_memory()
    return float(memory.available / memory.total)
