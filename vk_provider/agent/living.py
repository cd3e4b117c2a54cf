"""What goes on as long as a VM lives: its end, its events, its containers' output, its figures."""

from __future__ import annotations

import asyncio

import grpc.aio

from vk_provider._pb import guest_pb2
from vk_provider.agent import guest_clock
from vk_provider.agent.context import Context
from vk_provider.agent.ending import begin_end
from vk_provider.agent.exits import apply_info
from vk_provider.agent.guest import PROTOCOL_VERSION
from vk_provider.agent.guest_calls import CALL_S, GuestMisbehaved, ask, broke_off
from vk_provider.agent.guest_stats import MAX_TOLD, take_stats
from vk_provider.agent.logs import LogWriter
from vk_provider.agent.output import OutputPump
from vk_provider.agent.ports import Machine, VmExit
from vk_provider.agent.sandbox import Container, Sandbox
from vk_provider.agent.throttle import Throttle
from vk_provider.agent.together import together
from vk_provider.common.errors import DeadlineExceeded, Unavailable, VkError
from vk_provider.common.logging import get_logger

_log = get_logger("agent.sandbox")

_RETRY_S = 0.1
_DRAIN_S = 1.0
# A guest is asked for a sample each twenty seconds at least. One that is not heard of for so long
# is asked whether it is there, and has as long again to say so, however busy host and guest are.
_SILENT_S = 60.0
# What a guest that keeps to the contract never reaches.
_EVENTS_A_SECOND = 500


class _VmEndedError(Exception):
    def __init__(self, vm_exit: VmExit) -> None:
        super().__init__(vm_exit.message)
        self.exit = vm_exit


def begin_life(context: Context, sandbox: Sandbox, machine: Machine) -> None:
    """Start what accompanies a VM; the sandbox is READY."""
    sandbox.life = context.spawn(_live(context, sandbox, machine), f"sandbox {sandbox.id}")


def begin_output(context: Context, container: Container) -> None:
    """Start to take a container's output to its log. Idempotent."""
    sandbox = container.sandbox
    if container.pump is not None or sandbox.group is None or sandbox.machine is None:
        return
    settings = context.settings
    writer = LogWriter(
        container.log_path, settings.log_max_bytes, settings.log_max_files, feed=container.feed
    )
    bulk = sandbox.machine.guest.bulk
    container.pump = OutputPump(
        container.id,
        bulk,
        writer,
        context.clock,
        vm_ended=lambda: sandbox.vm_ended,
        on_held=lambda: context.container_changed(container),
    )
    task = sandbox.group.create_task(container.pump.run(), name=f"output of {container.id}")
    container.pump_task = task
    sandbox.pumps.add(task)
    task.add_done_callback(sandbox.pumps.discard)


async def _live(context: Context, sandbox: Sandbox, machine: Machine) -> None:
    try:
        async with together() as group:
            sandbox.group = group
            group.create_task(_watch_vm(sandbox, machine), name=f"end of VM {sandbox.id}")
            group.create_task(_watch_held(context, sandbox, machine), name=f"holds {sandbox.id}")
            group.create_task(
                _follow_events(context, sandbox, machine), name=f"events {sandbox.id}"
            )
            group.create_task(
                _take_stats(context, sandbox, machine), name=f"statistics {sandbox.id}"
            )
            group.create_task(_watch_silence(sandbox, machine), name=f"silence of {sandbox.id}")
            group.create_task(
                guest_clock.keep_right(context.clock, sandbox, machine.guest),
                name=f"clock of {sandbox.id}",
            )
            for container in sandbox.containers.values():
                # Also of those that have exited: their logs may have waited for room on the disk.
                if container.record.made:
                    begin_output(context, container)
            sandbox.group_ready.set()
    except _VmEndedError as end:
        message = str(end) or "the guest powered itself off"
        _log.warning("a VM ended", sandbox=sandbox.id, why=message)
        begin_end(context, sandbox, "VMExited", message)
    except Exception as exc:  # noqa: BLE001
        # Whatever a guest can provoke ends its own sandbox, and says so.
        _log.error("a sandbox failed", sandbox=sandbox.id, why=repr(exc))
        begin_end(context, sandbox, "GuestFailed", str(exc))
    finally:
        sandbox.group = None


async def _watch_vm(sandbox: Sandbox, machine: Machine) -> None:
    vm_exit = await machine.vm.wait()
    # What had left the guest is still in our sockets: let it reach the logs.
    pumps = [task for task in sandbox.pumps if not task.done()]
    sandbox.vm_ended = True
    if pumps:
        await asyncio.wait(pumps, timeout=_DRAIN_S)
    raise _VmEndedError(vm_exit)


async def _watch_held(context: Context, sandbox: Sandbox, machine: Machine) -> None:
    """Tell the node when the VM stands still for want of room on the disk, and when it goes on."""
    held = False
    while True:
        held = not held
        await machine.vm.until_held(held)
        context.sandbox_changed(sandbox)


async def _follow_events(context: Context, sandbox: Sandbox, machine: Machine) -> None:
    control = machine.guest.control
    throttle = Throttle(context.clock, _EVENTS_A_SECOND)
    seq = await _list(context, sandbox, machine)
    while True:
        call = control.Events(guest_pb2.EventsRequest(after_seq=seq), wait_for_ready=True)
        try:
            async for event in call:
                await throttle.pass_one()
                if event.kind == guest_pb2.Event.RESYNC:
                    seq = await _list(context, sandbox, machine)
                    break
                seq = event.seq
                if event.kind == guest_pb2.Event.CONTAINER:
                    apply_info(context, sandbox, event.container)
        except grpc.aio.AioRpcError as exc:
            broke_off(exc, "its events")
        finally:
            call.cancel()
        await context.clock.sleep(_RETRY_S)


async def _list(context: Context, sandbox: Sandbox, machine: Machine) -> int:
    """Take over every container's state; return the event that it reflects."""
    while True:
        try:
            answer = await ask(
                machine.guest.control.ListContainers(
                    guest_pb2.ListContainersRequest(), timeout=CALL_S, wait_for_ready=True
                ),
                f"listing the containers of sandbox {sandbox.id}",
            )
        except VkError as exc:
            # How long a guest may be silent is another's to judge: this host may be what is slow,
            # or a full disk may have stopped the VM.
            if not isinstance(exc, (Unavailable, DeadlineExceeded)):
                raise
            await context.clock.sleep(_RETRY_S)
            continue
        if len(answer.containers) > MAX_TOLD:
            raise GuestMisbehaved(f"the guest of {sandbox.id} told of too many containers")
        for info in answer.containers:
            apply_info(context, sandbox, info)
        return answer.event_seq


async def _take_stats(context: Context, sandbox: Sandbox, machine: Machine) -> None:
    """Get a sample at once, and then one whenever it is wanted; see `metering`."""
    while True:
        sandbox.stats_wanted.set()
        call = machine.guest.control.TakeStats(wait_for_ready=True)
        try:
            while True:
                await sandbox.stats_wanted.wait()
                if not call.done():  # else it broke off meanwhile; read() says why
                    await call.write(guest_pb2.TakeStatsRequest())
                stats = await call.read()
                if not isinstance(stats, guest_pb2.Stats):
                    break
                now = context.clock.now_ns()
                guest_clock.doubt(sandbox, stats.time_ns, now)
                take_stats(sandbox, stats, now, machine.vm.usage().cpu_ns)
                sandbox.heard.set()
                sandbox.stats_wanted.clear()
        except grpc.aio.AioRpcError as exc:
            broke_off(exc, "its statistics")
        finally:
            call.cancel()
        await context.clock.sleep(_RETRY_S)


async def _watch_silence(sandbox: Sandbox, machine: Machine) -> None:
    """Raise GuestMisbehaved when the guest agent neither samples nor answers any more."""
    hello = guest_pb2.HelloRequest(protocol_version=PROTOCOL_VERSION)
    while True:
        sandbox.heard.clear()
        try:
            async with asyncio.timeout(_SILENT_S):
                await sandbox.heard.wait()
            continue
        except TimeoutError:
            _log.warning("a guest is silent; asking whether it is there", sandbox=sandbox.id)
        try:
            await machine.guest.control.Hello(hello, timeout=_SILENT_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as exc:
            # A VM that waits for room on the host's disk can't answer, and is not to blame.
            if not machine.vm.held and not sandbox.heard.is_set():
                raise GuestMisbehaved(
                    f"the guest agent has been silent for {2 * _SILENT_S:g} s "
                    f"(asked again, it was {exc.code().name.lower()})"
                ) from exc
