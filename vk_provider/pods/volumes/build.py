"""From a pod's volumes to the agent's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Invalid
from vk_provider.pods.amounts import bounded, bounded_whole
from vk_provider.pods.errors import VolumeError
from vk_provider.pods.lookups import Lookup
from vk_provider.pods.objects import Objects
from vk_provider.pods.podspec import Pod, VolumeSpec, namespace_of, pod_security, volumes_of
from vk_provider.pods.resources import pod_limits
from vk_provider.pods.volumes.files import FileDefaults, readable_by_group
from vk_provider.pods.volumes.projected import Filled, Sources, projected_files, together

FILE_SOURCES = ("configMap", "secret", "downwardAPI", "projected")


@dataclass(frozen=True, slots=True)
class BuiltVolumes:
    """The volumes, and when one of them is due for renewal (wall time, None: never)."""

    volumes: tuple[pb.Volume, ...]
    renew_at_ns: int | None


async def build_volumes(
    pod: Pod,
    objects: Objects,
    *,
    allocatable: Mapping[str, str],
    image_refs: Mapping[str, str] | None = None,
) -> list[pb.Volume]:
    """Return all volumes of the pod, filled.

    `image_refs` has the image id for the name of each image volume (see `image_volumes`). Raises
    VolumeError, one line for each volume that can't be filled yet, in its `messages`.
    """
    built = await _build(pod, objects, allocatable, volumes_of(pod), image_refs or {})
    return list(built.volumes)


async def build_file_volumes(
    pod: Pod, objects: Objects, *, allocatable: Mapping[str, str]
) -> BuiltVolumes:
    """Return the volumes whose content may change while the pod runs. Raises VolumeError."""
    volumes = [volume for volume in volumes_of(pod) if any(one in volume for one in FILE_SOURCES)]
    return await _build(pod, objects, allocatable, volumes, {})


async def _build(
    pod: Pod,
    objects: Objects,
    allocatable: Mapping[str, str],
    volumes: list[VolumeSpec],
    image_refs: Mapping[str, str],
) -> BuiltVolumes:
    sources = Sources(pod, objects, Lookup(objects, namespace_of(pod), VolumeError), allocatable)
    built, failures = await together(_one(pod, volume, sources, image_refs) for volume in volumes)
    if failures:
        raise VolumeError(*failures)
    renewals = [renew_at_ns for _, renew_at_ns in built if renew_at_ns is not None]
    return BuiltVolumes(tuple(volume for volume, _ in built), min(renewals, default=None))


async def _one(
    pod: Pod, volume: VolumeSpec, sources: Sources, image_refs: Mapping[str, str]
) -> tuple[pb.Volume, int | None]:
    """Return a volume and when it is due for renewal."""
    try:
        if any(one in volume for one in FILE_SOURCES):
            filled = await _fill(volume, sources)
            return _files_volume(pod, volume, filled), filled.renew_at_ns
        return _other_volume(pod, volume, image_refs), None
    except (VolumeError, Invalid) as exc:
        raise VolumeError(
            f'MountVolume.SetUp failed for volume "{volume["name"]}" : {exc}'
        ) from exc


async def _fill(volume: VolumeSpec, sources: Sources) -> Filled:
    if (config_map := volume.get("configMap")) is not None:
        return Filled(await sources.config_map(config_map, FileDefaults.of(config_map)))
    if (secret := volume.get("secret")) is not None:
        return Filled(await sources.secret(secret, FileDefaults.of(secret)))
    if (downward := volume.get("downwardAPI")) is not None:
        return Filled(sources.downward(downward, FileDefaults.of(downward)))
    return await projected_files(volume["projected"], sources)


def _files_volume(pod: Pod, volume: VolumeSpec, filled: Filled) -> pb.Volume:
    payload = filled.payload
    result = pb.Volume(name=volume["name"])
    if (group := pod_security(pod).get("fsGroup")) is not None:
        payload = readable_by_group(payload)
        result.fs_group = group
    result.files.files.extend(payload[path] for path in sorted(payload))
    result.files.SetInParent()
    return result


def _other_volume(pod: Pod, volume: VolumeSpec, image_refs: Mapping[str, str]) -> pb.Volume:
    name = volume["name"]
    result = pb.Volume(name=name)
    if "image" in volume:
        if name not in image_refs:
            raise VolumeError(f'image "{volume["image"].get("reference", "")}" is not pulled yet')
        result.image.image_ref = image_refs[name]
        return result
    if "emptyDir" not in volume:
        sources = ", ".join(key for key in volume if key != "name")
        raise VolumeError(f"volume source {sources or 'none'} is not supported by this node")
    empty_dir = volume["emptyDir"] or {}
    memory = empty_dir.get("medium") == "Memory"
    result.scratch.medium = pb.ScratchVolume.MEMORY if memory else pb.ScratchVolume.DISK
    result.scratch.size_limit_bytes = _size_limit(
        pod, bounded_whole(empty_dir.get("sizeLimit") or 0), memory
    )
    security = pod_security(pod)
    if security.get("fsGroup") is not None:
        result.fs_group = security["fsGroup"]
        result.fs_group_on_root_mismatch = security.get("fsGroupChangePolicy") == "OnRootMismatch"
    return result


def _size_limit(pod: Pod, own_bytes: int, memory: bool) -> int:
    """In memory a volume is no larger than the pod's memory limit (emptydir, KEP-1967)."""
    if not memory:
        return own_bytes
    known = [
        limit for limit in (own_bytes, bounded(pod_limits(pod).get("memory", Fraction(0)))) if limit
    ]
    return min(known, default=0)
