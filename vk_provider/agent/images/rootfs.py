"""Makes the read-only disk of an image: layers applied by umoci, the tree packed by mkfs.erofs.

The tree is the image author's: nothing in it is followed out of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import tempfile
from pathlib import Path

from vk_provider.agent.tools import tool
from vk_provider.common.errors import Exhausted, Invalid

_SYS_OPENAT2 = 437  # the same on all architectures
_RESOLVE_IN_ROOT = 0x10
_MAX_ACCOUNTS_BYTES = 1024 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


async def unpack(layout: Path, root: Path, image: str) -> None:
    """Apply the layers of the image `image` in an OCI layout. Raises Invalid, Exhausted."""
    await _run(
        ["umoci", "raw", "unpack", "--image", f"{layout}:image", str(root)],
        "umoci",
        "unpack",
        image,
    )


async def make_disk(root: Path, disk: Path, image: str) -> None:
    """Pack a tree into an erofs file.

    Uncompressed: made in half the time, and read without work for the guest's processor.
    """
    await _run(["mkfs.erofs", "--quiet", str(disk), str(root)], "erofs-utils", "pack", image)


def read_text(root: Path, name: str) -> str:
    """Return a small text file of the tree, empty where there is none.

    Links are followed as if the tree were the root. Raises Invalid for a file over 1 MiB.
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        how = _OpenHow(flags, 0, _RESOLVE_IN_ROOT)
        fd = _libc.syscall(
            _SYS_OPENAT2, top, name.encode(), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
    finally:
        os.close(top)
    if fd < 0:
        code = ctypes.get_errno()
        if code in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES):
            return ""
        raise OSError(code, os.strerror(code), name)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return ""
    with os.fdopen(fd, "rb") as file:
        data = file.read(_MAX_ACCOUNTS_BYTES + 1)
    if len(data) > _MAX_ACCOUNTS_BYTES:
        raise Invalid(f"the image's {name} is larger than 1 MiB")
    return data.decode(errors="replace")


async def _run(command: list[str], package: str, verb: str, image: str) -> None:
    with tempfile.TemporaryFile() as output:
        async with tool(command, package=package, stderr=output) as process:
            code = await process.wait()
        if code == 0:
            return
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - 4096))
        words = output.read().decode(errors="replace").strip()[-2000:]
    sentence = f"failed to {verb} image {image!r}: {command[0]} ended with code {code}: {words}"
    if "no space left" in words.lower() or "disk quota" in words.lower():
        raise Exhausted(sentence)
    raise Invalid(sentence)
