"""A file system of little room, on a loop device, and ways to take that room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BALLAST = "ballast"


@contextmanager
def loop_disk(folder: Path, mib: int, *names: str) -> Iterator[Path]:
    """Mount a new ext4 file system below `folder`; its folders `names` appear in `folder` itself.

    Yields where it is mounted. The file behind it is sparse.
    """
    image, disk = folder / "disk.img", folder / "disk"
    image.touch()
    os.truncate(image, mib << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    mounted: list[Path] = []

    def mount(*arguments: str | Path, at: Path) -> None:
        at.mkdir(exist_ok=True)
        subprocess.run(["mount", *arguments, at], check=True)
        mounted.append(at)

    try:
        mount("-o", "loop", image, at=disk)
        for name in names:
            (disk / name).mkdir()
            mount("--bind", disk / name, at=folder / name)
        yield disk
    finally:
        for at in reversed(mounted):
            subprocess.run(["umount", at], check=True)


def fill(disk: Path) -> None:
    """Take what room there is, at once and to the last block."""
    with (disk / _BALLAST).open("ab") as file:
        size, step = os.fstat(file.fileno()).st_size, 1 << 30
        while step >= 4096:
            try:
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError:
                step //= 2


def make_room(disk: Path) -> None:
    """Give back what `fill` took."""
    (disk / _BALLAST).unlink()
