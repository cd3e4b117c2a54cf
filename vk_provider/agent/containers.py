"""The verbs on containers. Each may be repeated after any failure."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal as signals
from pathlib import Path

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.context import Context
from vk_provider.agent.disks import mount_image
from vk_provider.agent.ending import begin_end, wait_end
from vk_provider.agent.exits import mark_start_failed, mark_started
from vk_provider.agent.guest_calls import CALL_S, ask
from vk_provider.agent.images import StoredImage
from vk_provider.agent.living import begin_output
from vk_provider.agent.log_folders import make_container_log, remove_container_logs
from vk_provider.agent.oci import Sources, User, make_container_spec, resolve_user
from vk_provider.agent.records import ContainerRecord
from vk_provider.agent.sandbox import Container, Sandbox
from vk_provider.agent.settings import AgentSettings
from vk_provider.common.errors import (
    AlreadyExists,
    FailedPrecondition,
    Invalid,
    NotFound,
    VkError,
)
from vk_provider.common.logging import get_logger

_log = get_logger("agent.container")

_ID = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,252}")
_SIGNAL = re.compile(r"([A-Z0-9]+)(?:([+-])(\d{1,2}))?")
_DEFAULT_SIGNAL = "SIGTERM"
_KILL_S = 30.0


async def create_container(
    context: Context, request: pb.CreateContainerRequest
) -> pb.ContainerStatus:
    """Create a container in a ready sandbox."""
    sandbox = context.sandbox(request.sandbox_id)
    config = request.config
    container = context.containers.get(config.container_id)
    if container is None:
        sandbox.guest()  # raises where the sandbox has ended
        container = _record(context, sandbox, config)
    elif container.sandbox is not sandbox or container.record.status.name != config.name:
        raise AlreadyExists(
            f"container {container.id} is {container.record.status.name!r} of sandbox "
            f"{container.sandbox.id}, not {config.name!r} of {sandbox.id}"
        )
    async with container.lock:
        if not container.record.made and not container.record.exited:
            await _make(context, container, config)
    return container.status()


async def start_container(context: Context, container_id: str) -> pb.ContainerStatus:
    """Start a created container. A command that can't run is an exit, not an error."""
    container = context.container(container_id)
    async with container.lock:
        status = container.record.status
        if status.state != pb.CONTAINER_CREATED:
            return container.status()
        if not container.record.made:
            raise FailedPrecondition(f"container {container_id} was not created in full")
        control = container.sandbox.guest().control
        begin_output(context, container)
        answer = await ask(
            control.StartContainer(
                guest_pb2.StartContainerRequest(container_id=container_id), timeout=CALL_S
            ),
            f"starting container {status.name!r}",
        )
        if answer.error:
            mark_start_failed(context, container, answer.error)
        else:
            mark_started(context, container, answer.started_at_ns)
        if context.spares is not None:
            context.spares.start_ends(container.sandbox.id)
        return container.status()


async def stop_container(
    context: Context, container_id: str, grace_s: int, signal: str
) -> pb.ContainerStatus:
    """Signal, wait, kill; return once it has exited. Grace only ever shrinks.

    A guest that does not do it loses its VM: it must not keep its pod from ending.
    """
    container = context.container(container_id)
    record = container.record
    if record.exited:
        return container.status()
    if record.status.state == pb.CONTAINER_CREATED:
        raise FailedPrecondition(f"container {container_id} was never started; remove it")
    number = signal_number(signal or record.stop_signal)
    wanted = context.clock.monotonic() + max(0, grace_s)
    if container.stop_by is None or wanted < container.stop_by:
        container.stop_by = wanted
        container.stop_by_changed.set()
        container.stop_by_changed = asyncio.Event()
    if grace_s > 0 and not container.signalled:
        try:
            await _signal(container, number, min(CALL_S, grace_s))
            container.signalled = True
        except VkError as exc:
            _log.warning("a container was not signalled", container=container_id, why=str(exc))
    if not await _exits_in_time(context, container):
        await _kill(context, container)
    return container.status()


async def remove_container(context: Context, container_id: str) -> None:
    """Remove a container that does not run, with its log and record."""
    container = context.container(container_id)
    async with container.lock:
        if container.record.running:
            raise FailedPrecondition(f"container {container_id} runs; stop it first")
        sandbox = container.sandbox
        if container.pump_task is not None and not container.pump_task.done():
            container.pump_task.cancel()  # its log is as complete as it gets, and goes now
            await asyncio.wait([container.pump_task])
        if container.record.made and sandbox.machine is not None:
            request = guest_pb2.RemoveContainerRequest(container_id=container_id)
            with contextlib.suppress(NotFound):
                await ask(
                    sandbox.machine.guest.control.RemoveContainer(request, timeout=CALL_S),
                    f"removing container {container_id}",
                )
        await asyncio.to_thread(remove_container_logs, container.log_path)
        context.store.delete_container(container_id)
        context.containers.pop(container_id, None)
        sandbox.containers.pop(container_id, None)
        container.feed.end()
        context.container_changed(container)


def signal_number(name: str) -> int:
    """Return the number of SIGTERM, TERM, 15, SIGRTMIN+3 … Raises Invalid."""
    text = name.upper().removeprefix("SIG") or "TERM"
    if text.isdecimal() and 1 <= int(text) <= signals.SIGRTMAX:
        return int(text)
    match = _SIGNAL.fullmatch(text)
    base, sign, offset = match.groups() if match else ("", "", "")
    known = {known.name: int(known) for known in signals.Signals}
    number = known.get(f"SIG{base}", 0) + int(f"{sign}{offset}" if sign and offset else 0)
    if f"SIG{base}" not in known or not 1 <= number <= signals.SIGRTMAX:
        raise Invalid(f"{name!r} is no signal of Linux")
    return number


def _record(context: Context, sandbox: Sandbox, config: pb.ContainerConfig) -> Container:
    """Check a configuration and write the container down."""
    if _ID.fullmatch(config.container_id) is None:
        raise Invalid(f"{config.container_id!r} is no container id: 64 hex digits")
    if _NAME.fullmatch(config.name) is None:
        raise Invalid(f"{config.name!r} cannot be a container's name")
    image = _image(context, config)
    user = _user(config, image)
    stop_signal = config.stop_signal or image.config.stop_signal or _DEFAULT_SIGNAL
    signal_number(stop_signal)
    status = pb.ContainerStatus(
        container_id=config.container_id,
        sandbox_id=sandbox.id,
        name=config.name,
        attempt=config.attempt,
        state=pb.CONTAINER_CREATED,
        image=config.image,
        image_ref=image.image_ref,
        image_digest=image.repo_digests[0] if image.repo_digests else image.image_ref,
        created_at_ns=context.clock.now_ns(),
        annotations=dict(config.annotations),
        resources=config.resources,
        run_as_user=user.uid,
        run_as_group=user.gid,
        supplemental_groups=user.groups,
    )
    log_path = _log_path(context.settings, sandbox, config)
    record = ContainerRecord(
        status,
        str(log_path),
        image.key,
        stop_signal,
        tty=config.tty,
        stdin=config.stdin,
    )
    container = Container(record, sandbox)
    context.save_container(container)
    sandbox.containers[container.id] = container
    context.containers[container.id] = container
    return container


async def _make(context: Context, container: Container, config: pb.ContainerConfig) -> None:
    sandbox = container.sandbox
    image = _image(context, config)
    key = await mount_image(context, sandbox, image.image_ref)
    control = sandbox.guest().control
    target_pid = 0
    if config.target_container_id:
        target_pid = await _pid_of(sandbox, config.target_container_id)
    made = make_container_spec(
        config,
        Sources(
            image=image.config,
            image_key=key,
            user=_user(config, image),
            hostname=sandbox.record.hostname,
            share_process_namespace=sandbox.record.share_process_namespace,
            target_pid=target_pid,
        ),
    )
    make_container_log(container.log_path)
    await ask(
        control.CreateContainer(made, timeout=CALL_S),
        f"creating container {config.name!r}",
    )
    container.record.made = True
    context.save_container(container)
    context.container_changed(container)


async def _pid_of(sandbox: Sandbox, container_id: str) -> int:
    answer = await ask(
        sandbox.guest().control.ListContainers(guest_pb2.ListContainersRequest(), timeout=CALL_S),
        f"looking for container {container_id}",
    )
    for info in answer.containers:
        if info.container_id == container_id and info.state == guest_pb2.RUNNING and info.pid > 0:
            return info.pid
    raise FailedPrecondition(f"the target container {container_id} does not run")


def _image(context: Context, config: pb.ContainerConfig) -> StoredImage:
    image = context.images.resolve(config.image_ref or config.image)
    if image is None:
        raise NotFound(
            f"image {config.image_ref or config.image} is not on this host; pull it first"
        )
    return image


def _user(config: pb.ContainerConfig, image: StoredImage) -> User:
    security = config.security
    return resolve_user(
        image.config.user,
        image.passwd,
        image.group,
        run_as_user=security.run_as_user if security.HasField("run_as_user") else None,
        run_as_group=security.run_as_group if security.HasField("run_as_group") else None,
        supplemental_groups=list(security.supplemental_groups),
        strict_groups=security.supplemental_groups_strict,
    )


def _log_path(settings: AgentSettings, sandbox: Sandbox, config: pb.ContainerConfig) -> Path:
    pod = sandbox.record.status.pod
    directory = settings.log_dir / f"{pod.namespace}_{pod.name}_{pod.uid}" / config.name
    return directory / f"{config.attempt}.log"


async def _exits_in_time(context: Context, container: Container) -> bool:
    """Wait for the exit until `stop_by`, which may move nearer meanwhile."""
    while not container.exited.is_set():
        assert container.stop_by is not None
        left = container.stop_by - context.clock.monotonic()
        if left <= 0:
            return False
        changed = container.stop_by_changed
        waits = [
            asyncio.ensure_future(container.exited.wait()),
            asyncio.ensure_future(changed.wait()),
        ]
        try:
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
    return True


async def _kill(context: Context, container: Container) -> None:
    """Kill all that runs in a container, and the whole VM where its guest does not do that."""
    sandbox = container.sandbox
    try:
        async with asyncio.timeout(_KILL_S):
            await _signal(container, signals.SIGKILL, _KILL_S, every=True)
            await container.exited.wait()
    except TimeoutError:
        why = f"its guest did not end it within {_KILL_S:g} s"
    except VkError as exc:
        why = str(exc)
    else:
        return
    name = container.record.status.name
    begin_end(context, sandbox, "GuestFailed", f"container {name!r} was to be killed: {why}")
    await wait_end(sandbox)


async def _signal(
    container: Container, number: int, timeout_s: float, *, every: bool = False
) -> None:
    try:
        await ask(
            container.sandbox.guest().control.SignalContainer(
                guest_pb2.SignalContainerRequest(
                    container_id=container.id, signal=number, all=every
                ),
                timeout=timeout_s,
                wait_for_ready=True,
            ),
            f"sending signal {number} to container {container.id}",
        )
    except (NotFound, FailedPrecondition):
        if not container.exited.is_set() and container.finishing is None:
            raise
