"""Starts a pod's sandbox: volumes, names, the VM (kuberuntime createPodSandbox)."""

from __future__ import annotations

from contextlib import suppress

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import AlreadyExists, NotFound, Unavailable, VkError
from vk_provider.pods.annotations import GRACE_PERIOD, RESOURCES
from vk_provider.pods.context import PodContext
from vk_provider.pods.dns import pod_dns
from vk_provider.pods.errors import VolumeError
from vk_provider.pods.resize import allocation_note
from vk_provider.pods.sandbox_config import make_run_sandbox_request
from vk_provider.pods.volumes.build import build_volumes
from vk_provider.pods.volumes.images import image_volumes
from vk_provider.runtime.ids import sandbox_id

_MIB = 1024 * 1024


async def start_sandbox(ctx: PodContext, attempt: int) -> None:
    """Run sandbox number `attempt` and take it into the context.

    Raises what stood in the way, after its event was recorded; the caller tries again.
    """
    services, pod = ctx.services, ctx.pod
    volumes = await _volumes(ctx)
    id_ = sandbox_id(ctx.uid, attempt)
    try:
        host = await services.host.get()
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
        request = make_run_sandbox_request(
            pod,
            id_,
            attempt,
            volumes,
            host=host,
            settings=services.settings,
            annotations={GRACE_PERIOD: str(grace), RESOURCES: allocation_note(pod)},
        )
        dns = pod_dns(pod, host_resolv_conf=host.resolv_conf, settings=services.settings)
        for reason, message in dns.warnings:
            services.recorder.event(pod, "Warning", reason, message)
        ctx.sandbox_ids.add(id_)
        sandbox = await _run(ctx, request)
    except VkError as exc:
        if isinstance(exc, Unavailable) and await _goes_on(ctx, id_):
            raise
        message = f"Failed to create pod sandbox: {exc}"
        services.recorder.event(pod, "Warning", "FailedCreatePodSandBox", message)
        raise
    _tell_how(ctx, sandbox)
    services.volumes.add_pod(pod, id_, volumes)
    ctx.merge_sandbox(sandbox)


async def _volumes(ctx: PodContext) -> list[pb.Volume]:
    services, pod = ctx.services, ctx.pod
    try:
        return await build_volumes(
            pod,
            services.objects,
            allocatable=services.allocatable(),
            image_refs=await _volume_images(ctx),
        )
    except VolumeError as exc:
        for message in exc.messages:
            services.recorder.event(pod, "Warning", "FailedMount", message)
        raise


async def _volume_images(ctx: PodContext) -> dict[str, str]:
    refs: dict[str, str] = {}
    for volume in image_volumes(ctx.pod):
        found = await ctx.services.images.ensure(ctx.pod, volume.reference, volume.pull_policy)
        if found.image is None:
            why = found.waiting.message if found.waiting else ""
            raise VolumeError(f'failed to pull image for volume "{volume.name}": {why}')
        refs[volume.name] = found.image.image_ref
    return refs


async def _run(ctx: PodContext, request: pb.RunSandboxRequest) -> pb.SandboxStatus:
    runtime = ctx.services.runtime
    try:
        return await runtime.run_sandbox(request)
    except AlreadyExists:
        # Begun before a restart with what has changed since (a token): give that one up.
        with suppress(NotFound):
            await runtime.stop_sandbox(request.sandbox_id)
        raise Unavailable(
            f"sandbox {request.sandbox_id} was begun with other content; a new one is started"
        ) from None


async def _goes_on(ctx: PodContext, id_: str) -> bool:
    """Say whether the sandbox is being started all the same: then only the answer was lost.

    Raises Unavailable where the agent is away: that says nothing of the pod.
    """
    listed = await ctx.services.runtime.list_sandboxes(id_)
    return any(sandbox.state != pb.SANDBOX_NOT_READY for sandbox in listed.sandboxes)


def _tell_how(ctx: PodContext, sandbox: pb.SandboxStatus) -> None:
    shape = sandbox.shape
    mode = "from a template" if sandbox.start_mode == "template" else "cold"
    why = f" ({sandbox.start_reason})" if sandbox.start_reason else ""
    sized = f": {shape.reason}" if shape.reason else ""
    message = (
        f"Started a microVM with {shape.cpu_milli / 1000:g} vCPU and "
        f"{shape.memory_bytes // _MIB} MiB, {mode}{why}{sized}"
    )
    ctx.services.recorder.event(ctx.pod, "Normal", "SandboxStarted", message)
