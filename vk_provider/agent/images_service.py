"""The verbs on images."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.context import Context
from vk_provider.agent.image_collection import collect_once, images_in_use
from vk_provider.agent.images import StoredImage
from vk_provider.common.errors import FailedPrecondition, NotFound
from vk_provider.common.logging import get_logger

_log = get_logger("agent.images")


async def pull_image(
    context: Context, request: pb.PullImageRequest
) -> AsyncGenerator[pb.PullImageProgress]:
    """Fetch an image; then make room where the disk has become too full."""
    auth = request.auth if request.HasField("auth") else None
    pulled = ""
    async with aclosing(context.images.pull(request.image, auth)) as progress:
        async for step in progress:
            if step.HasField("image"):
                pulled = step.image.image_ref
                step.image.in_use = pulled in images_in_use(context)
            yield step
    await collect_once(context, keep={pulled})


def list_images(context: Context, image: str) -> list[pb.Image]:
    """Return the images that were asked for; "" for all."""
    if image:
        found = context.images.resolve(image)
        images = [found] if found is not None else []
    else:
        images = context.images.list()
    used = images_in_use(context)
    return [_to_proto(one, in_use=one.image_ref in used) for one in images]


async def remove_image(context: Context, image: str) -> None:
    """Remove an image that nothing uses. Raises NotFound, FailedPrecondition."""
    found = context.images.resolve(image)
    if found is None:
        raise NotFound(f"there is no image {image} on this host")
    if found.image_ref in images_in_use(context):
        raise FailedPrecondition(f"image {image} is in use by a container; remove that first")
    await context.images.remove(image)


def _to_proto(image: StoredImage, *, in_use: bool) -> pb.Image:
    message = pb.Image(
        image_ref=image.image_ref,
        repo_tags=image.repo_tags,
        repo_digests=image.repo_digests,
        size_bytes=image.size_bytes,
        pulled_at_ns=image.pulled_at_ns,
        last_used_at_ns=image.last_used_at_ns,
        user=image.config.user,
        in_use=in_use,
    )
    if image.uid is not None:
        message.uid = image.uid
    return message
