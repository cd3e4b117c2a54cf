"""What a container sees mounted: the kernel's file systems, small files, the pod's volumes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Invalid

VOLUMES = "/run/vk/volumes"
SANDBOX = "/run/vk/sandbox"
_NAME = re.compile(r"[a-z0-9A-Z][a-zA-Z0-9._-]{0,252}")
_PROPAGATION = {"": "rprivate", "None": "rprivate", "HostToContainer": "rslave",
                "Bidirectional": "rshared"}  # fmt: skip


@dataclass
class Mounts:
    """OCI mounts, and what the guest has to make ready for them, by its index."""

    mounts: list[dict[str, Any]] = field(default_factory=list)
    sub_paths: list[guest_pb2.SubPath] = field(default_factory=list)
    files: list[guest_pb2.ContainerFile] = field(default_factory=list)


def make_mounts(config: pb.ContainerConfig) -> Mounts:
    """Return a container's mounts, parents before what lies below them. Raises Invalid."""
    made = Mounts()
    home = f"/run/vk/containers/{config.container_id}"
    read_only = config.security.readonly_rootfs
    chosen: dict[str, dict[str, Any]] = {}
    for name in ("hostname", "resolv.conf"):
        chosen[f"/etc/{name}"] = _bind(f"{SANDBOX}/{name}", f"/etc/{name}", read_only=read_only)
    for number, file in enumerate(config.files):
        made.files.append(guest_pb2.ContainerFile(data=file.data, mode=file.mode))
        path = _clean(file.container_path)
        chosen[path] = _bind(f"{home}/files/{number}", path, read_only=read_only)
    if config.termination_message_path:
        path = _clean(config.termination_message_path)
        chosen[path] = _bind(f"{home}/termination-log", path)
    for mount in config.mounts:
        path = _clean(mount.container_path)
        chosen[path] = _volume(mount, path, home, made.sub_paths)
    base = [m for m in _kernel(config.security.privileged) if m["destination"] not in chosen]
    ordered = sorted(chosen.values(), key=lambda m: len(PurePosixPath(m["destination"]).parts))
    made.mounts = base + ordered
    return made


def _volume(
    mount: pb.Mount, path: str, home: str, sub_paths: list[guest_pb2.SubPath]
) -> dict[str, Any]:
    if _NAME.fullmatch(mount.volume) is None:
        raise Invalid(f"{mount.volume!r} cannot be a volume's name")
    if mount.propagation not in _PROPAGATION:
        raise Invalid(f"the mount at {path} has the unknown propagation {mount.propagation!r}")
    source = f"{VOLUMES}/{mount.volume}"
    if mount.sub_path:
        source = f"{home}/subpaths/{len(sub_paths)}"
        sub_paths.append(
            guest_pb2.SubPath(volume=mount.volume, path=mount.sub_path, read_only=mount.read_only)
        )
    return _bind(
        source,
        path,
        read_only=mount.read_only,
        recursive=mount.recursive_read_only,
        propagation=_PROPAGATION[mount.propagation],
    )


def _bind(
    source: str,
    path: str,
    *,
    read_only: bool = False,
    recursive: bool = False,
    propagation: str = "rprivate",
) -> dict[str, Any]:
    if read_only:
        access = "rro" if recursive else "ro"
    else:
        access = "rw"
    return {
        "destination": path,
        "type": "bind",
        "source": source,
        "options": ["rbind", propagation, access],
    }


def _clean(path: str) -> str:
    """Return the path without doubled or trailing slashes; raises Invalid where it may climb."""
    parts: Sequence[str] = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or not parts or ".." in parts or "\0" in path:
        raise Invalid(f"{path!r} is no absolute path inside a container, below its root")
    return "/" + "/".join(parts)


def _kernel(privileged: bool) -> list[dict[str, Any]]:
    access = "rw" if privileged else "ro"
    quiet = ["nosuid", "noexec", "nodev"]
    rows: list[tuple[str, str, str, list[str]]] = [
        ("/proc", "proc", "proc", quiet),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", quiet),
        ("/sys", "sysfs", "sysfs", [*quiet, access]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*quiet, "relatime", access]),
    ]
    return [
        {"destination": path, "type": kind, "source": source, "options": list(options)}
        for path, kind, source, options in rows
    ]
