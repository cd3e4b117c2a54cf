"""Files of configMap, secret and downwardAPI sources (pkg/volume/{configmap,secret,downwardapi}).

Payloads are keyed by path, so that a later source of a projected volume replaces an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Invalid
from vk_provider.pods.errors import VolumeError
from vk_provider.pods.fieldpath import metadata_field
from vk_provider.pods.podspec import Pod, all_containers, pod_security
from vk_provider.pods.resource_fields import resource_field

DEFAULT_MODE = 0o644
_GROUP_READ = 0o440

Payload = dict[str, pb.File]


@dataclass(frozen=True, slots=True)
class FileDefaults:
    """What holds for the files of one volume that say nothing else."""

    mode: int
    user: int | None = None

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> FileDefaults:
        """Read a volume source's defaultMode and defaultUser."""
        mode = source.get("defaultMode")
        return cls(DEFAULT_MODE if mode is None else mode, source.get("defaultUser"))


def keyed_files(
    data: Mapping[str, bytes],
    source: Mapping[str, Any],
    defaults: FileDefaults,
    missing: str,
) -> Payload:
    """Return a ConfigMap's or Secret's entries as files: all, or those of `items`.

    `missing` is the start of the error for an item whose key is not there.
    """
    items = source.get("items")
    if not items:
        return by_path(make_file(key, value, defaults) for key, value in data.items())
    files = []
    for item in items:
        if item["key"] in data:
            files.append(make_file(item["path"], data[item["key"]], defaults, item))
        elif not source.get("optional"):
            raise VolumeError(f"{missing}: {item['key']}")
    return by_path(files)


def downward_files(
    pod: Pod,
    source: Mapping[str, Any],
    defaults: FileDefaults,
    allocatable: Mapping[str, str],
) -> Payload:
    """Return the fields of the pod that a downwardAPI source names, as files."""
    files = []
    for item in source.get("items") or ():
        try:
            if (field := item.get("fieldRef")) is not None:
                text = metadata_field(pod, field.get("fieldPath", ""))
            else:
                text = resource_field(pod, item.get("resourceFieldRef") or {}, allocatable)
        except Invalid as exc:
            raise VolumeError(str(exc)) from exc
        files.append(make_file(item["path"], text.encode(), defaults, item))
    return by_path(files)


def by_path(files: Iterable[pb.File]) -> Payload:
    """Key files by their paths; a later one replaces an earlier one."""
    return {file.path: file for file in files}


def make_file(
    path: str, data: bytes, defaults: FileDefaults, item: Mapping[str, Any] | None = None
) -> pb.File:
    """Return one file; an item's own mode and user go before the volume's defaults.

    Its path is cleaned of empty and `.` parts. Raises VolumeError for one that leads elsewhere.
    """
    clean = PurePosixPath(path)
    parts = clean.parts
    if not parts or parts[0] == "/" or ".." in parts or parts[0].startswith(".."):
        raise VolumeError(f'"{path}" can\'t be the path of a file in a volume')
    item = item or {}
    mode, user = item.get("mode"), item.get("user")
    file = pb.File(path=str(clean), data=data, mode=defaults.mode if mode is None else mode)
    owner = defaults.user if user is None else user
    if owner is not None:
        file.uid = owner
    return file


def readable_by_group(payload: Payload) -> Payload:
    """Give the group of an fsGroup read access (SetVolumeOwnership's mask for such volumes)."""
    for file in payload.values():
        file.mode |= _GROUP_READ
    return payload


def common_user(pod: Pod) -> int | None:
    """Return the user whom all containers run as, None where they differ or leave it open.

    Projected tokens belong to that user (volumeutil.FsUserFrom).
    """
    users = set()
    for container in all_containers(pod):
        if "targetContainerName" in container:
            continue  # ephemeral containers come later and change no volume
        user = (container.get("securityContext") or {}).get("runAsUser")
        users.add(pod_security(pod).get("runAsUser") if user is None else user)
    return users.pop() if len(users) == 1 else None
