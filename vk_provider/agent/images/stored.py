"""What the store knows of an image, and how it writes that down."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

DISK_FILE = "disk.erofs"
RECORD_FILE = "image.json"


@dataclass(frozen=True)
class ImageConfig:
    """The image's defaults for a container."""

    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    env: list[str] = field(default_factory=list)  # NAME=value
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredImage:
    """image_ref: the image's id, `sha256:…`. key: its name for the guest (images/KEY).

    disk: the erofs file. passwd, group: those files' text in the image, empty where missing.
    repo_tags: full names with tags. repo_digests: full names with the digest pulled by.
    size_bytes: of the disk file. last_used_at_ns: when a container last asked for it.
    """

    image_ref: str
    disk: Path
    config: ImageConfig
    passwd: str
    group: str
    repo_tags: list[str]
    repo_digests: list[str]
    size_bytes: int
    pulled_at_ns: int
    last_used_at_ns: int

    @property
    def key(self) -> str:
        return self.image_ref.removeprefix("sha256:")

    @property
    def uid(self) -> int | None:
        """The uid of the config's user; None where the image does not know that name."""
        name = self.config.user.partition(":")[0]
        if not name:
            return 0
        for line in self.passwd.splitlines():
            fields = line.split(":")
            if len(fields) > 2 and fields[0] == name and fields[2].isdecimal():
                return int(fields[2])
        return int(name) if name.isdecimal() else None


@dataclass(frozen=True)
class FsUsage:
    """The file system that holds the images; used_bytes is what the images take."""

    capacity_bytes: int
    used_bytes: int
    available_bytes: int
    inodes: int
    inodes_free: int


def to_json(image: StoredImage) -> bytes:
    """Return the record file's content. The last use is kept as the disk file's own time."""
    value = asdict(image)
    del value["disk"], value["last_used_at_ns"]
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


def from_json(data: bytes, directory: Path) -> StoredImage:
    """Read a record file back. Raises ValueError, OSError (no disk file)."""
    try:
        value: dict[str, Any] = orjson.loads(data)
        disk = directory / DISK_FILE
        status = disk.stat()
        config = ImageConfig(**value.pop("config"))
        image = StoredImage(
            **value,
            config=config,
            disk=disk,
            last_used_at_ns=status.st_mtime_ns,
        )
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError) as exc:
        raise ValueError(f"damaged record: {exc}") from exc
    if image.size_bytes != status.st_size:
        raise ValueError(f"the disk has {status.st_size} bytes instead of {image.size_bytes}")
    if image.key != directory.name:
        raise ValueError(f"the record is of image {image.image_ref}")
    return image
