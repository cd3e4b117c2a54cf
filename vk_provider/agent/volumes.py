"""A pod's volumes as the guest is asked to make them."""

from __future__ import annotations

import re

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import FailedPrecondition, Invalid

# DNS labels, as Kubernetes names volumes; they become directories of the guest.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,252}")


def image_refs(volumes: list[pb.Volume]) -> list[str]:
    """Return the images that volumes are made of."""
    return [v.image.image_ref for v in volumes if v.WhichOneof("source") == "image"]


def put_volume_request(volume: pb.Volume, image_key: str = "") -> guest_pb2.PutVolumeRequest:
    """Return the guest's request for a volume; `image_key` is that of an image volume's image.

    Raises Invalid for names and paths that lead elsewhere, FailedPrecondition for what this
    agent does not do.
    """
    if _NAME.fullmatch(volume.name) is None:
        raise Invalid(f"{volume.name!r} cannot be a volume's name")
    request = guest_pb2.PutVolumeRequest(
        name=volume.name, fs_group_on_root_mismatch=volume.fs_group_on_root_mismatch
    )
    if volume.HasField("fs_group"):
        request.fs_group = volume.fs_group
    match volume.WhichOneof("source"):
        case "files":
            request.files.CopyFrom(_files(volume))
        case "scratch":
            request.scratch.memory = volume.scratch.medium == pb.ScratchVolume.MEMORY
            request.scratch.size_limit_bytes = volume.scratch.size_limit_bytes
        case "image":
            request.image_key = image_key
        case "shared_directory":
            raise FailedPrecondition(
                f"volume {volume.name!r} is the directory {volume.shared_directory.path} of the "
                "host, and this agent shares none yet; use another kind of volume"
            )
        case _:
            raise Invalid(f"volume {volume.name!r} does not say what it holds")
    return request


def _files(volume: pb.Volume) -> guest_pb2.FilesVolume:
    made = guest_pb2.FilesVolume()
    for file in volume.files.files:
        parts = file.path.split("/")
        if not file.path or any(part in ("", ".", "..") for part in parts) or "\0" in file.path:
            raise Invalid(f"volume {volume.name!r} has the file {file.path!r}, which leads outside")
        copy = made.files.add(path=file.path, data=file.data, mode=file.mode)
        if file.HasField("uid"):
            copy.uid = file.uid
    return made
