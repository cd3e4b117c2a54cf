"""The ends in a pod's life: of its containers, of its sandboxes, of its records."""

from __future__ import annotations

from contextlib import suppress

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import FailedPrecondition, NotFound
from vk_provider.pods.annotations import TERMINATION_POLICY
from vk_provider.pods.context import PodContext
from vk_provider.pods.killing import Grace
from vk_provider.pods.prune import superseded
from vk_provider.pods.termination_message import termination_message


async def end_pod(ctx: PodContext, grace: Grace) -> None:
    """End everything of the pod that runs, then its VM. Records and logs stay.

    May be called again after any failure. Raises what the runtime raises.
    """
    await ctx.services.killer.kill_all(ctx.pod, ctx.state.running(), grace, pod_ip=ctx.pod_ip)
    for sandbox in ctx.state.live_sandboxes():
        with suppress(NotFound):
            await ctx.services.runtime.stop_sandbox(sandbox.sandbox_id)


async def clean_up(ctx: PodContext) -> None:
    """Remove every trace of the pod from the runtime."""
    for id_ in sorted(ctx.sandbox_ids):
        with suppress(NotFound):
            await ctx.services.runtime.remove_sandbox(id_)
        ctx.sandbox_ids.discard(id_)


async def remove_superseded(ctx: PodContext) -> None:
    """Remove the records of the pod that nobody needs any more."""
    old = superseded(ctx.state)
    for id_ in old.containers:
        with suppress(NotFound, FailedPrecondition):
            await ctx.services.runtime.remove_container(id_)
    for id_ in old.sandboxes:
        with suppress(NotFound):
            await ctx.services.runtime.remove_sandbox(id_)
        ctx.sandbox_ids.discard(id_)


async def read_messages(ctx: PodContext) -> None:
    """Read the termination messages of runs that have ended, each once."""
    for run in ctx.state.containers:
        if run.state != pb.CONTAINER_EXITED or run.container_id in ctx.messages:
            continue
        policy = run.annotations.get(TERMINATION_POLICY, "")
        message = await termination_message(ctx.services.runtime, run, policy)
        ctx.messages[run.container_id] = message
