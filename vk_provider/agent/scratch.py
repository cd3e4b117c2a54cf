"""A sandbox's scratch disk: a sparse ext4 file, bounded by construction.

No journal: its content dies with the VM. mkfs takes under 10 ms for any size, as the file is
sparse and known to be zero, so no template of it is kept.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from vk_provider.common.errors import Exhausted, Internal

_STEP = 16 * 1024 * 1024
_LEAST = 64 * 1024 * 1024


async def make_scratch_disk(path: Path, size_bytes: int) -> None:
    """Make the file anew, with room for that many bytes. Raises Exhausted, Internal."""
    size = max(_LEAST, -(-size_bytes // _STEP) * _STEP)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)
    except OSError as exc:
        raise Exhausted(f"the scratch disk {path} cannot be made: {exc}") from exc
    process = await asyncio.create_subprocess_exec(
        "mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode",
        "-E", "assume_storage_prezeroed=1,nodiscard,root_owner=0:0", str(path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
    )  # fmt: skip
    try:
        _, words = await process.communicate()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode != 0:
        said = words.decode(errors="replace").strip()
        kind = Exhausted if "No space left" in said else Internal
        raise kind(f"mkfs.ext4 failed on the scratch disk {path}: {said}")
