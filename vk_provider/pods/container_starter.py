"""Starts one container: image, configuration, create, start, postStart (kubelet startContainer)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Unavailable, VkError
from vk_provider.pods.actions import container_hash
from vk_provider.pods.annotations import CONTAINER_HASH, RESOURCES, TERMINATION_POLICY
from vk_provider.pods.container_config import make_container_config
from vk_provider.pods.context import PodContext
from vk_provider.pods.environment import make_environment
from vk_provider.pods.errors import ConfigError, HookError
from vk_provider.pods.hooks import run_hook
from vk_provider.pods.hosts_file import make_hosts_file
from vk_provider.pods.images import ImageResult, go_duration_ms
from vk_provider.pods.killing import Grace
from vk_provider.pods.podspec import Container, describe, namespace_of
from vk_provider.pods.recorder import field_path
from vk_provider.pods.resize import resources_note
from vk_provider.pods.status.containers import Waiting
from vk_provider.runtime.ids import container_id

_NS = 1_000_000_000
_FIRST_PULL_RETRY_NS = 2 * _NS  # then the status turns from ErrImagePull to ImagePullBackOff


def is_held_back(ctx: PodContext, container: Container) -> bool:
    """Say whether a container must wait: for its crash loop's back-off, or for its next try.

    Where it must, that is shown and the worker is woken in time (kubelet doBackOff).
    """
    name = str(container["name"])
    now = ctx.services.clock.now_ns()
    if ctx.not_before.get(name, 0) > now:
        ctx.wake_at(ctx.not_before[name])
        return True
    last = next((r for r in ctx.state.history(name) if r.state == pb.CONTAINER_EXITED), None)
    if last is None or last.container_id in ctx.released:
        return False
    key = _backoff_key(ctx, container)
    until = ctx.services.restarts.until_ns(key, last.finished_at_ns)
    if until <= now:
        ctx.services.restarts.advance(key, last.finished_at_ns, now)
        ctx.released.add(last.container_id)
        return False
    delay = go_duration_ms(round(ctx.services.restarts.delay_s(key) * 1000))
    text = f"back-off {delay} restarting failed container={name} pod={describe(ctx.pod)}"
    if last.container_id not in ctx.told_backoff:
        ctx.told_backoff.add(last.container_id)
        message = f"Back-off restarting failed container {name} in pod {describe(ctx.pod)}"
        _event(ctx, name, "Warning", "BackOff", message)
    ctx.wait(name, Waiting("CrashLoopBackOff", text), until)
    return True


async def start_container(
    ctx: PodContext, container: Container, image: Awaitable[ImageResult]
) -> bool:
    """Start a container in the ready sandbox; True once it runs and its postStart hook is done.

    What stands in its way is shown as its waiting reason. Raises Unavailable where the runtime is
    away: then nothing is known, and the caller tries again.
    """
    name = str(container["name"])
    present = await image
    if present.image is None:
        assert present.waiting is not None
        _event(ctx, name, "Warning", "Failed", f"Error: {present.waiting.reason}")
        retry = present.retry_at_ns
        if present.waiting.reason != "ImagePullBackOff":
            retry = min(retry, ctx.services.clock.now_ns() + _FIRST_PULL_RETRY_NS)
        ctx.wait(name, present.waiting, retry)
        return False
    container = ctx.container(name)  # it may have been given other resources meanwhile
    id_ = await _create(ctx, container, present.image)
    if id_ is None or not await _start(ctx, container, id_):
        return False
    if not await _post_start(ctx, container, id_):
        return False
    ctx.started(name)
    ctx.report()
    return True


async def _create(ctx: PodContext, container: Container, image: pb.Image) -> str | None:
    """Create the next run and return its id; None where it could not be, which is shown."""
    name = str(container["name"])
    sandbox = ctx.state.ready_sandbox
    if sandbox is None:
        raise Unavailable(f"the sandbox of {describe(ctx.pod)} ended meanwhile")
    begun = ctx.state.latest_active(name)
    if begun is not None and begun.state == pb.CONTAINER_CREATED:
        # From before a restart, or after a lost answer: it may have been made in part alone, and
        # is created again, which changes nothing where it is whole.
        attempt = begun.attempt
    else:
        attempt = _next_attempt(ctx, name)
    id_ = container_id(sandbox.sandbox_id, name, attempt)
    try:
        config = await _config(ctx, container, id_, attempt, image)
    except ConfigError as exc:
        _failed(ctx, name, "CreateContainerConfigError", str(exc))
        return None
    try:
        request = pb.CreateContainerRequest(sandbox_id=sandbox.sandbox_id, config=config)
        status = await ctx.services.runtime.create_container(request)
    except Unavailable:
        raise
    except VkError as exc:
        _failed(ctx, name, "CreateContainerError", str(exc))
        return None
    ctx.merge_container(status)
    _event(ctx, name, "Normal", "Created", "Container created")
    return id_


async def _config(
    ctx: PodContext, container: Container, id_: str, attempt: int, image: pb.Image
) -> pb.ContainerConfig:
    services, pod = ctx.services, ctx.pod
    env = await make_environment(
        pod,
        container,
        services.objects,
        pod_ips=ctx.pod_ips,
        host_ips=services.host_ips(),
        node_name=services.settings.node_name,
        allocatable=services.allocatable(),
        services=await services.objects.services(namespace_of(pod)),
    )
    target = ctx.state.latest_active(str(container.get("targetContainerName") or ""))
    return make_container_config(
        pod,
        container,
        container_id=id_,
        attempt=attempt,
        image_ref=image.image_ref,
        image=image,
        env=env,
        hosts_file=make_hosts_file(pod, ctx.pod_ips, settings=services.settings),
        annotations=_notes(container),
        settings=services.settings,
        target_container_id=target.container_id if target else "",
    )


async def _start(ctx: PodContext, container: Container, id_: str) -> bool:
    name = str(container["name"])
    try:
        status = await ctx.services.runtime.start_container(id_)
    except Unavailable:
        raise
    except VkError as exc:
        _failed(ctx, name, "RunContainerError", str(exc))
        return False
    if status.state == pb.CONTAINER_EXITED and status.reason == "StartError":
        ctx.merge_container(status)
        message = status.message or "the command could not be started"
        _event(ctx, name, "Warning", "Failed", f"Error: {message}")
        ctx.waiting[name] = Waiting("RunContainerError", message)
        ctx.report()
        return False
    ctx.waiting.pop(name, None)
    ctx.merge_container(status)
    _event(ctx, name, "Normal", "Started", "Container started")
    return True


async def _post_start(ctx: PodContext, container: Container, id_: str) -> bool:
    handler: dict[str, Any] | None = (container.get("lifecycle") or {}).get("postStart")
    if not handler:
        return True
    name, services = str(container["name"]), ctx.services
    try:
        await run_hook(
            services.runtime,
            ctx.pod,
            container,
            id_,
            handler,
            pod_ip=ctx.pod_ip,
            timeout_s=None,
            clock=services.clock,
        )
        return True
    except HookError as exc:
        _event(ctx, name, "Warning", "FailedPostStartHook", "PostStartHook failed")
        message = str(exc)
    run = next((r for r in ctx.state.running() if r.container_id == id_), None)
    if run is not None:
        grace = Grace(services.clock, ctx.pod["spec"].get("terminationGracePeriodSeconds", 30))
        await services.killer.kill(
            ctx.pod, run, grace, pod_ip=ctx.pod_ip, message="FailedPostStartHook"
        )
    ctx.waiting[name] = Waiting("PostStartHookError", message)
    ctx.report()
    return False


def _next_attempt(ctx: PodContext, name: str) -> int:
    """Return the number of the next run: it is the restart count, and names its log."""
    latest = ctx.state.latest(name)
    if latest is not None:
        return latest.attempt + 1
    shown = ctx.past_run(name)
    if shown is None:
        return 0
    count = int(shown.get("restartCount") or 0)
    return count + 1 if "terminated" in shown["state"] else count


def _failed(ctx: PodContext, name: str, reason: str, message: str) -> None:
    _event(ctx, name, "Warning", "Failed", f"Error: {message}")
    ctx.wait(name, Waiting(reason, message))


def _notes(container: Container) -> dict[str, str]:
    return {
        CONTAINER_HASH: container_hash(container),
        RESOURCES: resources_note(container),
        TERMINATION_POLICY: str(container.get("terminationMessagePolicy") or "File"),
    }


def _backoff_key(ctx: PodContext, container: Container) -> str:
    resources = container.get("resources") or {}
    return f"{ctx.uid}/{container['name']}/{container.get('image', '')}/{resources!r}"


def _event(ctx: PodContext, name: str, kind: Any, reason: str, message: str) -> None:
    ctx.services.recorder.event(
        ctx.pod, kind, reason, message, field_path=field_path(ctx.pod, name)
    )
