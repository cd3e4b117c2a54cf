"""A sandbox and a container as this process knows them: the record, and what is not written."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.logs import LogFeed
from vk_provider.agent.ports import Guest, Machine
from vk_provider.agent.records import ContainerRecord, Phase, SandboxRecord
from vk_provider.common.errors import FailedPrecondition, VkError

if TYPE_CHECKING:
    from vk_provider.agent.output import OutputPump


@dataclass(eq=False)
class Container:
    """One container of a sandbox."""

    record: ContainerRecord
    sandbox: Sandbox
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by create, start and remove, never while waiting for an exit."""
    feed: LogFeed = field(default_factory=LogFeed)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the record says EXITED, that is: when its log is complete too."""
    pump: OutputPump | None = None
    pump_task: asyncio.Task[None] | None = None
    finishing: guest_pb2.ContainerInfo | None = None
    """How it ended, while its log is still being fetched."""
    stop_by: float | None = None
    """When it is killed, in the monotonic clock; only ever earlier."""
    stop_by_changed: asyncio.Event = field(default_factory=asyncio.Event)
    signalled: bool = False

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def log_path(self) -> Path:
        return Path(self.record.log_path)

    def status(self) -> pb.ContainerStatus:
        """Return a copy of the whole status."""
        status = pb.ContainerStatus()
        status.CopyFrom(self.record.status)
        status.log_held = self.pump.held if self.pump is not None else ""
        return status


@dataclass(eq=False)
class Sandbox:
    """One sandbox. Its tasks belong to the agent's task group."""

    record: SandboxRecord
    machine: Machine | None = None
    containers: dict[str, Container] = field(default_factory=dict)
    starting: asyncio.Task[None] | None = None
    start_error: VkError | None = None
    life: asyncio.Task[None] | None = None
    group: asyncio.TaskGroup | None = None
    """Owner of what lasts as long as the VM: pumps, events, statistics."""
    group_ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once `group` takes tasks."""
    pumps: set[asyncio.Task[None]] = field(default_factory=set)
    vm_ended: bool = False
    ending: asyncio.Task[None] | None = None
    end_error: VkError | None = None
    disk_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    mounted: set[str] = field(default_factory=set)
    """Keys of the image disks that the guest has mounted."""
    stats: guest_pb2.Stats | None = None
    """The newest that the guest sent."""
    stats_at_ns: int = 0
    """When it was true, as far as is known: a VM that idles uses what it had used."""
    stats_taken_ns: int = 0
    vm_cpu_at_stats_ns: int = 0
    """What the VM had used once that sample was here."""
    stats_wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while a sample is wanted or on its way."""
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by each sample."""
    clock_doubted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a sample whose time is not the host's."""
    usage: pb.UsageRecord | None = None
    """As it was written last."""

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def is_ending(self) -> bool:
        """Whether its end is under way."""
        return self.ending is not None and not self.ending.done()

    def guest(self) -> Guest:
        """Return the way to the guest agent; raises FailedPrecondition where there is none."""
        if self.machine is None or self.record.phase not in (Phase.READY, Phase.STARTING):
            raise FailedPrecondition(
                f"sandbox {self.id} is {self.record.phase.value}: nothing can be done in it"
            )
        return self.machine.guest

    def running_machine(self) -> Machine:
        """Return the VM; raises FailedPrecondition where there is none."""
        self.guest()
        assert self.machine is not None
        return self.machine

    def status(self) -> pb.SandboxStatus:
        """Return a copy of the whole status."""
        status = pb.SandboxStatus()
        status.CopyFrom(self.record.status)
        status.machine_id = self.record.machine_id
        if self.machine is not None and self.machine.vm.held:
            status.held = "the host's disk has no room for what it writes"
        status.containers.extend(c.status() for c in self.containers.values())
        return status
