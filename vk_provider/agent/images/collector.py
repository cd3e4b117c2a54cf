"""Which images go when the disk is full (the kubelet's image garbage collection). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from vk_provider.agent.images.stored import FsUsage, StoredImage

#: A younger image may have been pulled for a pod that has not asked for it yet.
MIN_AGE_NS = 120 * 1_000_000_000


@dataclass(frozen=True)
class Collected:
    """removed: images' ids. wanted_bytes: how much was to be freed; 0: the disk had room."""

    removed: list[str]
    freed_bytes: int
    wanted_bytes: int


def plan(
    images: Iterable[StoredImage],
    usage: FsUsage,
    in_use: Set[str],
    now_ns: int,
    high_percent: int,
    low_percent: int,
) -> tuple[list[StoredImage], int]:
    """Return the images to remove, the longest unused first, and how many bytes are wanted.

    Nothing until the file system is `high_percent` full; then as much as brings it to
    `low_percent`. `in_use` holds ids.
    """
    taken = usage.capacity_bytes - usage.available_bytes
    if usage.capacity_bytes == 0 or taken * 100 < high_percent * usage.capacity_bytes:
        return [], 0
    wanted = taken - low_percent * usage.capacity_bytes // 100
    chosen: list[StoredImage] = []
    left = wanted
    for image in sorted(images, key=lambda image: image.last_used_at_ns):
        if left <= 0:
            break
        if image.image_ref in in_use or now_ns - image.pulled_at_ns < MIN_AGE_NS:
            continue
        chosen.append(image)
        left -= image.size_bytes
    return chosen, wanted
