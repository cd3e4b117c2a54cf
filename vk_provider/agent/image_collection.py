"""Frees the disk of images and templates that nobody uses: images by the kubelet's thresholds."""

from __future__ import annotations

from collections.abc import Set

from vk_provider.agent.context import Context
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger

_log = get_logger("agent.images")

_PERIOD_S = 300.0  # kubelet: ImageGCPeriod


async def collect_images(context: Context) -> None:
    """Look every five minutes, until cancelled.

    Templates go first: they are made anew in seconds, an image has to come over the network.
    """
    while True:
        await context.clock.sleep(_PERIOD_S)
        await context.machines.prune_templates()
        await collect_once(context)


async def collect_once(context: Context, keep: Set[str] = frozenset()) -> None:
    """Remove the longest unused images where the disk is too full; never raises.

    keep: ids of more that are to stay, since a container is about to use them.
    """
    try:
        done = await context.images.collect(in_use=images_in_use(context) | keep)
    except (VkError, OSError) as exc:
        _log.warning("unused images were not removed", why=str(exc))
        return
    if done.freed_bytes < done.wanted_bytes:
        _log.warning(
            "the images' disk stays too full: what is left is in use",
            freed_bytes=done.freed_bytes,
            wanted_bytes=done.wanted_bytes,
        )


def images_in_use(context: Context) -> set[str]:
    """Return the ids of images that a VM has or that a container was made from."""
    sandboxes = context.sandboxes.values()
    mounted = {disk.image_ref for s in sandboxes if s.record.live for disk in s.record.disks}
    return mounted | {c.record.status.image_ref for c in context.containers.values()}
