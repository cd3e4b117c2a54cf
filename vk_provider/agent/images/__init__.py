"""Container images: fetched by skopeo, merged into one read-only file system for each image.

An image is one directory, named by its id (the digest of its config), with an erofs file that
any number of VMs attach, and a JSON file with what the runtime needs of its config. This room
does not know who uses an image: callers name those in use when something is to be removed.
"""

from __future__ import annotations

from vk_provider.agent.images.collector import Collected
from vk_provider.agent.images.references import Reference, parse_reference
from vk_provider.agent.images.settings import ImageSettings
from vk_provider.agent.images.store import ImageStore
from vk_provider.agent.images.stored import FsUsage, ImageConfig, StoredImage

__all__ = [
    "Collected",
    "FsUsage",
    "ImageConfig",
    "ImageSettings",
    "ImageStore",
    "Reference",
    "StoredImage",
    "parse_reference",
]
