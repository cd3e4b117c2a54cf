"""Carries out a plan (kubelet SyncPod): thin, in order, side by side where order says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import NotFound, Unavailable, VkError
from vk_provider.pods.actions import Kill, PodActions
from vk_provider.pods.annotations import RESOURCES
from vk_provider.pods.container_starter import is_held_back, start_container
from vk_provider.pods.context import PodContext
from vk_provider.pods.images import ImageResult
from vk_provider.pods.killing import Grace
from vk_provider.pods.podspec import Container, all_containers, is_sidecar
from vk_provider.pods.recorder import field_path
from vk_provider.pods.resize import resizable, resources_note
from vk_provider.pods.resources import linux_resources
from vk_provider.pods.sandbox_starter import start_sandbox

Pulls = dict[str, asyncio.Task[ImageResult]]


def may_wait(ctx: PodContext, actions: PodActions) -> bool:
    """Say whether all that the plan wants is to start containers whose time has not come.

    What there is to wait for is shown, and the worker is woken in time.
    """
    if actions.kill_pod or actions.create_sandbox or actions.kills:
        return False
    if actions.resize and not ctx.holds_back_resize():
        return False
    by_name = {str(c["name"]): c for c in all_containers(ctx.pod)}
    names = [*actions.start_ephemeral, *actions.start_init, *actions.start]
    return all(is_held_back(ctx, by_name[n]) for n in names)


async def carry_out(ctx: PodContext, actions: PodActions) -> None:
    """Do what the plan says. Raises what the runtime raises; then the pod is planned anew.

    Images are fetched while the sandbox starts; containers start in the order of the spec.
    """
    if actions.replaces_sandbox:
        message = "Pod sandbox changed, it will be killed and re-created."
        ctx.services.recorder.event(ctx.pod, "Normal", "SandboxChanged", message)
    if actions.kill_pod:
        await _end_old_sandboxes(ctx)
    else:
        await _kill(ctx, list(actions.kills.values()))
    if actions.resize and not ctx.holds_back_resize():
        await _resize(ctx, actions.resize)
    by_name = {str(c["name"]): c for c in all_containers(ctx.pod)}
    names = [*actions.start_ephemeral, *actions.start_init, *actions.start]
    due = [n for n in names if not is_held_back(ctx, by_name[n])]
    async with asyncio.TaskGroup() as group:
        pulls: Pulls = {
            name: group.create_task(_ensure(ctx, by_name[name]), name=f"image/{ctx.uid}/{name}")
            for name in due
        }
        if actions.create_sandbox:
            await start_sandbox(ctx, actions.attempt)
        await _start_ephemeral_and_init(ctx, actions, by_name, due, pulls)
        apps = [by_name[n] for n in actions.start if n in due]
        await _start_apps(ctx, apps, pulls)


async def _start_ephemeral_and_init(
    ctx: PodContext,
    actions: PodActions,
    by_name: dict[str, Container],
    due: Sequence[str],
    pulls: Pulls,
) -> None:
    for name in actions.start_ephemeral:
        if name in due:
            await start_container(ctx, by_name[name], pulls[name])
    for name in actions.start_init:
        started = name in due and await start_container(ctx, by_name[name], pulls[name])
        if not started and not is_sidecar(by_name[name]):
            return


async def _start_apps(ctx: PodContext, containers: Sequence[Container], pulls: Pulls) -> None:
    """Start app containers; one with a postStart hook holds up those after it, as it ever did."""
    together: list[Container] = []
    for container in containers:
        together.append(container)
        if (container.get("lifecycle") or {}).get("postStart"):
            await _start_together(ctx, together, pulls)
            together = []
    await _start_together(ctx, together, pulls)


async def _start_together(ctx: PodContext, containers: Sequence[Container], pulls: Pulls) -> None:
    async with asyncio.TaskGroup() as group:
        for container in containers:
            name = str(container["name"])
            group.create_task(
                start_container(ctx, container, pulls[name]), name=f"start/{ctx.uid}/{name}"
            )


async def _ensure(ctx: PodContext, container: Container) -> ImageResult:
    return await ctx.services.images.ensure(
        ctx.pod,
        str(container["image"]),
        str(container.get("imagePullPolicy") or "IfNotPresent"),
        field_path(ctx.pod, str(container["name"])),
    )


async def _kill(ctx: PodContext, kills: Sequence[Kill]) -> None:
    """End the containers that must not go on; a probe may have a grace of its own."""
    runs = {run.container_id: run for run in ctx.state.containers}
    async with asyncio.TaskGroup() as group:
        for kill in kills:
            group.create_task(
                ctx.services.killer.kill(
                    ctx.pod,
                    runs[kill.container_id],
                    Grace(ctx.services.clock, _grace_s(ctx, kill)),
                    pod_ip=ctx.pod_ip,
                    message=kill.message,
                ),
                name=f"kill/{kill.container_id}",
            )
    if kills:
        listed = await ctx.services.runtime.list_sandboxes(pod_uid=ctx.uid)
        for sandbox in listed.sandboxes:
            ctx.merge_sandbox(sandbox)


async def _resize(ctx: PodContext, names: Sequence[str]) -> None:
    """Give running containers their new limits; one that can't have them is tried again later."""
    failures: list[str] = []
    for container in resizable(ctx.pod):
        run = ctx.state.latest_active(str(container["name"]))
        if container["name"] not in names or run is None:
            continue
        limits = linux_resources(ctx.pod, container, settings=ctx.services.settings)
        notes = {RESOURCES: resources_note(container)}
        try:
            status = await ctx.services.runtime.update_container_resources(
                run.container_id, limits, notes
            )
        except Unavailable:
            raise
        except VkError as exc:
            failures.append(str(exc))
            continue
        ctx.merge_container(status)
    if failures:
        ctx.resizing.failed(ctx.pod, "; ".join(failures))
        ctx.report()


def _grace_s(ctx: PodContext, kill: Kill) -> float:
    key = {"LivenessProbe": "livenessProbe", "StartupProbe": "startupProbe"}.get(kill.reason)
    container = next((c for c in all_containers(ctx.pod) if c["name"] == kill.name), {})
    probe = container.get(key) if key else None
    own = (probe or {}).get("terminationGracePeriodSeconds")
    return float(
        own if own is not None else ctx.pod["spec"].get("terminationGracePeriodSeconds", 30)
    )


async def _end_old_sandboxes(ctx: PodContext) -> None:
    """End what is left in sandboxes that are no longer good."""
    grace = Grace(ctx.services.clock, ctx.pod["spec"].get("terminationGracePeriodSeconds", 30))
    running: list[pb.ContainerStatus] = ctx.state.running()
    await ctx.services.killer.kill_all(ctx.pod, running, grace, pod_ip=ctx.pod_ip)
    for sandbox in ctx.state.live_sandboxes():
        try:
            await ctx.services.runtime.stop_sandbox(sandbox.sandbox_id)
        except NotFound:
            continue
