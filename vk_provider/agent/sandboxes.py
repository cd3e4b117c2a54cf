"""The verbs on sandboxes. Each may be repeated after any failure."""

from __future__ import annotations

import asyncio
import re

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.context import Context
from vk_provider.agent.disks import mount_image
from vk_provider.agent.ending import begin_end, wait_end
from vk_provider.agent.guest_calls import CALL_S, ask
from vk_provider.agent.living import begin_life
from vk_provider.agent.log_folders import remove_container_logs
from vk_provider.agent.phases import Phases
from vk_provider.agent.records import Phase, SandboxRecord
from vk_provider.agent.sandbox import Sandbox
from vk_provider.agent.shapes import choose_shape
from vk_provider.agent.starting import start_machine
from vk_provider.agent.volumes import image_refs, put_volume_request
from vk_provider.common.errors import (
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    Internal,
    Invalid,
    VkError,
)
from vk_provider.common.logging import get_logger

_log = get_logger("agent.sandbox")

_CONTAINER_FOLLOWS_S = 2.0
_ID = re.compile(r"[0-9a-f]{32}")
# Parts of the log directory's name.
_POD_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


async def run_sandbox(context: Context, request: pb.RunSandboxRequest) -> pb.SandboxStatus:
    """Start a sandbox, or wait for the start that is under way. See `sandbox.proto`.

    Giving up waiting does not end the start; StopSandbox does.
    """
    sandbox = context.sandboxes.get(request.sandbox_id)
    if sandbox is None:
        sandbox = _record(context, request)
        sandbox.starting = context.spawn(
            _start(context, sandbox, request), f"start of sandbox {sandbox.id}"
        )
    record = sandbox.record
    if record.status.pod.uid != request.pod.uid or record.status.attempt != request.attempt:
        raise AlreadyExists(
            f"sandbox {sandbox.id} is attempt {record.status.attempt} of pod "
            f"{record.status.pod.uid}, not attempt {request.attempt} of {request.pod.uid}"
        )
    if sandbox.starting is not None:
        await asyncio.wait([sandbox.starting])
    if sandbox.start_error is not None:
        raise sandbox.start_error
    if record.phase is not Phase.READY:
        raise FailedPrecondition(
            f"sandbox {sandbox.id} is {record.phase.value} and does not start again "
            f"({record.status.reason}); use another attempt"
        )
    return sandbox.status()


async def stop_sandbox(context: Context, sandbox_id: str) -> None:
    """End the VM at once; records and logs stay."""
    sandbox = context.sandbox(sandbox_id)
    begin_end(context, sandbox, "Stopped", "")
    await wait_end(sandbox)


async def remove_sandbox(context: Context, sandbox_id: str) -> None:
    """Remove every trace of a sandbox."""
    sandbox = context.sandbox(sandbox_id)
    await remove(context, sandbox)


async def remove(context: Context, sandbox: Sandbox) -> None:
    """Take a sandbox down, then its logs, its records last."""
    ended = sandbox.record.phase is Phase.ENDED
    sandbox.record.enter(Phase.REMOVING)
    context.note(sandbox)
    if not ended:
        begin_end(context, sandbox, "Stopped", "")
        await wait_end(sandbox)
    for container in sandbox.containers.values():
        await asyncio.to_thread(remove_container_logs, container.log_path)
    forget(context, sandbox)


def forget(context: Context, sandbox: Sandbox) -> None:
    """Drop the records of a sandbox of which nothing else is left."""
    context.store.delete_sandbox(sandbox.id)
    context.sandboxes.pop(sandbox.id, None)
    for container_id in sandbox.containers:
        context.containers.pop(container_id, None)
    context.sandbox_changed(sandbox)


def list_sandboxes(context: Context, sandbox_id: str, pod_uid: str) -> pb.ListSandboxesResponse:
    """Return the sandboxes that were asked for, with the event that they reflect."""
    chosen = [
        sandbox.status()
        for sandbox in context.sandboxes.values()
        if sandbox_id in ("", sandbox.id) and pod_uid in ("", sandbox.record.status.pod.uid)
    ]
    return pb.ListSandboxesResponse(sandboxes=chosen, event_seq=context.events.seq)


async def update_volume(context: Context, sandbox_id: str, volume: pb.Volume) -> None:
    """Make a volume, or replace the content of a files volume."""
    sandbox = context.sandbox(sandbox_id)
    refs = image_refs([volume])
    key = await mount_image(context, sandbox, refs[0]) if refs else ""
    await ask(
        sandbox.guest().control.PutVolume(put_volume_request(volume, key), timeout=CALL_S),
        f"updating volume {volume.name!r} of sandbox {sandbox_id}",
    )


def _record(context: Context, request: pb.RunSandboxRequest) -> Sandbox:
    """Check a request and write the sandbox down. Raises Invalid, Exhausted."""
    pod = request.pod
    if _ID.fullmatch(request.sandbox_id) is None:
        raise Invalid(f"{request.sandbox_id!r} is no sandbox id: 32 hex digits")
    for word in (pod.namespace, pod.name, pod.uid):
        if _POD_WORD.fullmatch(word) is None:
            raise Invalid(f"{word!r} cannot be part of a pod's identity")
    live = sum(s.record.live for s in context.sandboxes.values())
    if live >= context.settings.max_pods:
        raise Exhausted(
            f"this host runs {live} microVMs, and its limit is {context.settings.max_pods}"
        )
    for volume in request.volumes:
        put_volume_request(volume)  # refuses what can't be made
    shape = choose_shape(request.demand, request.size_override, context.sizes)
    record = SandboxRecord(
        status=pb.SandboxStatus(
            sandbox_id=request.sandbox_id,
            pod=pod,
            attempt=request.attempt,
            state=pb.SANDBOX_STARTING,
            created_at_ns=context.clock.now_ns(),
            shape=shape,
            annotations=dict(request.annotations),
        ),
        hostname=request.hostname,
        share_process_namespace=request.share_process_namespace,
        uid=context.free_uid(),
    )
    sandbox = Sandbox(record)
    context.save(sandbox)
    context.sandboxes[sandbox.id] = sandbox
    return sandbox


async def _start(context: Context, sandbox: Sandbox, request: pb.RunSandboxRequest) -> None:
    """Start, and leave nothing behind where that fails. A cancelled start is ended by who did."""
    phases = Phases()
    if context.spares is not None:
        context.spares.start_begins(sandbox.id)
    try:
        await start_machine(context, sandbox, request, phases)
        sandbox.record.status.phases.extend(phases.done)
        sandbox.record.enter(Phase.READY)
        context.save(sandbox)
    except VkError as exc:
        sandbox.start_error = exc
    except Exception as exc:  # noqa: BLE001 - a defect fails this start, in words
        _log.exception("a sandbox did not start", sandbox=sandbox.id)
        sandbox.start_error = Internal(f"starting sandbox {sandbox.id}: {exc!r}")
    finally:
        if context.spares is not None:
            # A first container usually follows; where it is pulled first, that takes a while.
            context.spares.start_ends(sandbox.id, after_s=_CONTAINER_FOLLOWS_S)
    if sandbox.start_error is None and sandbox.machine is not None:
        context.sandbox_changed(sandbox)
        begin_life(context, sandbox, sandbox.machine)
        await sandbox.group_ready.wait()
        return
    _log.warning("a sandbox did not start", sandbox=sandbox.id, why=str(sandbox.start_error))
    if sandbox.is_ending:
        return  # it was stopped meanwhile, and its end waits for this task
    await _undo(context, sandbox)


async def _undo(context: Context, sandbox: Sandbox) -> None:
    # This very task is what the end would cancel first.
    sandbox.starting = None
    sandbox.record.enter(Phase.REMOVING)
    begin_end(context, sandbox, "StartFailed", str(sandbox.start_error))
    try:
        await wait_end(sandbox)
    except VkError:
        return  # it stays REMOVING: the next agent, or RemoveSandbox, finishes that
    context.store.delete_usage(sandbox.id)  # what never worked is not billed
    forget(context, sandbox)
