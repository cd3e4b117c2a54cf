"""The images on the disk: one directory each, found again at the start. Blocking.

    DIRECTORY/HEX/disk.erofs, DIRECTORY/HEX/image.json     an image
    DIRECTORY/work/                                        what is being made

An image's directory appears by one rename when it is complete. A record that cannot be read,
or a disk of another size than it says, takes its image with it: the next pull brings it back.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from vk_provider.agent.images.references import image_id, parse_reference
from vk_provider.agent.images.stored import (
    RECORD_FILE,
    FsUsage,
    StoredImage,
    from_json,
    to_json,
)
from vk_provider.common.errors import Invalid
from vk_provider.common.logging import get_logger

_KEY = re.compile(r"[0-9a-f]{64}")
_log = get_logger("agent.images")


class Catalogue:
    """What images there are, and the names they have."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._work = directory / "work"
        self._images: dict[str, StoredImage] = {}

    def load(self) -> None:
        """Read the directory, made if need be; remove what is unfinished or damaged."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._work.mkdir(mode=0o700, exist_ok=True)
        for path in self._work.iterdir():
            shutil.rmtree(path, ignore_errors=True)
        self._images.clear()
        for path in self._directory.iterdir():
            if not _KEY.fullmatch(path.name):
                continue
            try:
                image = from_json((path / RECORD_FILE).read_bytes(), path)
            except (OSError, ValueError) as exc:
                _log.warning(
                    "an image is damaged and will be pulled anew when it is wanted",
                    image=path.name,
                    error=str(exc),
                )
                shutil.rmtree(path, ignore_errors=True)
            else:
                self._images[image.image_ref] = image

    def all(self) -> list[StoredImage]:
        return sorted(self._images.values(), key=lambda image: image.pulled_at_ns)

    def by_id(self, image_ref: str) -> StoredImage | None:
        return self._images.get(image_ref)

    def find(self, text: str) -> StoredImage | None:
        """Return the image of an id, a name with a tag or a name with a digest, if it is here."""
        if found := self._images.get(image_id(text)):
            return found
        try:
            reference = parse_reference(text)
        except Invalid:
            return None
        for image in self._images.values():
            if reference.digest:
                if reference.at(reference.digest) in image.repo_digests:
                    return image
            elif reference.tagged in image.repo_tags:
                return image
        return None

    def work_directory(self) -> Path:
        """Return a new directory, on the images' file system, to make something in."""
        return Path(tempfile.mkdtemp(dir=self._work))

    def add(self, image: StoredImage, directory: Path) -> StoredImage:
        """Take over a directory with a disk file as the image's own."""
        (directory / RECORD_FILE).write_bytes(to_json(image))
        disk = directory / image.disk.name
        os.utime(disk, ns=(image.last_used_at_ns, image.last_used_at_ns))
        directory.chmod(0o700)
        home = self._home(image)
        shutil.rmtree(home, ignore_errors=True)
        directory.rename(home)
        image = replace(image, disk=home / image.disk.name)
        self._images[image.image_ref] = image
        return image

    def give_names(self, image_ref: str, tagged: str, with_digest: str) -> StoredImage:
        """Give an image names; a tag is taken from the image that had it before."""
        image = self._images[image_ref]
        tags = list(dict.fromkeys([*image.repo_tags, *([tagged] if tagged else [])]))
        digests = list(dict.fromkeys([*image.repo_digests, with_digest]))
        named = replace(image, repo_tags=tags, repo_digests=digests)
        if named != image:
            self._save(named)
        for other in list(self._images.values()):
            if tagged in other.repo_tags and other.image_ref != image_ref:
                self._save(replace(other, repo_tags=[t for t in other.repo_tags if t != tagged]))
        return named

    def mark_used(self, image_ref: str, now_ns: int) -> None:
        """Note that a container asked for the image; kept as the disk file's time."""
        image = self._images.get(image_ref)
        if image is not None:
            os.utime(image.disk, ns=(now_ns, now_ns))
            self._images[image_ref] = replace(image, last_used_at_ns=now_ns)

    def remove(self, image: StoredImage) -> None:
        """Remove an image. Those that have its disk open keep it until they close it."""
        # A name of its own: of an earlier removal something may be left, until the next start.
        gone = self._work / f"removed-{image.key}-{time.monotonic_ns()}"
        self._home(image).rename(gone)
        self._images.pop(image.image_ref, None)
        shutil.rmtree(gone)

    def usage(self) -> FsUsage:
        stats = os.statvfs(self._directory)
        return FsUsage(
            capacity_bytes=stats.f_blocks * stats.f_frsize,
            used_bytes=sum(image.size_bytes for image in self._images.values()),
            available_bytes=stats.f_bavail * stats.f_frsize,
            inodes=stats.f_files,
            inodes_free=stats.f_favail,
        )

    def _home(self, image: StoredImage) -> Path:
        return self._directory / image.key

    def _save(self, image: StoredImage) -> None:
        path = self._home(image) / RECORD_FILE
        unfinished = path.with_suffix(".tmp")
        unfinished.write_bytes(to_json(image))
        unfinished.rename(path)
        self._images[image.image_ref] = image
