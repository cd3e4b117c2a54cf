"""A template in memory: the guest's RAM and its devices' state in sealed memfds.

QEMU 7.2 opens a memory file for writing even when it maps it privately, so a file that all VMs
share would have to be writable for all of them. A sealed memfd can be opened so, and written by
nobody.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_CHUNK = 256 * 1024
_BLOCK = 4096


def make_memfd(name: str, size: int) -> int:
    """Return a new memfd of that size, still writable; the caller closes it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd


def seal(fd: int) -> None:
    """Make a memfd unchangeable for ever. Raises OSError while somebody maps it for writing."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def data_chunks(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Return what a sparse file holds: offsets and bytes, without blocks of zeros alone.

    All offsets are whole blocks, whatever the file system's extents are.
    """
    zeros = bytes(_BLOCK)
    for start, end in _extents(fd, size):
        offset = start
        while offset < end:
            data = _read(fd, min(_CHUNK, end - offset), offset)
            for first, last in _runs(data, zeros):
                yield offset + first, data[first:last]
            offset += len(data)


def _read(fd: int, count: int, offset: int) -> bytes:
    """Read all of it; a read that a signal cuts short would shift the blocks that follow."""
    data = os.pread(fd, count, offset)
    while len(data) < count:
        more = os.pread(fd, count - len(data), offset + len(data))
        if not more:
            raise OSError(errno.EIO, f"the file ends at byte {offset + len(data)}")
        data += more
    return data


def _runs(data: bytes, zeros: bytes) -> Iterator[tuple[int, int]]:
    """Return the runs of blocks that are not zero."""
    begin: int | None = None
    for at in range(0, len(data), _BLOCK):
        block = data[at : at + _BLOCK]
        if block == zeros[: len(block)]:
            if begin is not None:
                yield begin, at
                begin = None
        elif begin is None:
            begin = at
    if begin is not None:
        yield begin, len(data)


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # nothing but a hole
                return
            raise
        # A file system with small blocks may tell of parts of ours.
        hole = os.lseek(fd, start, os.SEEK_HOLE)
        offset = min(size, -(-hole // _BLOCK) * _BLOCK)
        yield start - start % _BLOCK, offset


def copy_sparse(source: int, target: int, size: int) -> str:
    """Copy what is not zero to an empty file and return the checksum of it; sets target's size.

    Raises OSError for a full disk. For a thread: takes about 0.2 s for a small guest.
    """
    os.ftruncate(target, size)
    digest = hashlib.sha256(str(size).encode())
    for offset, data in data_chunks(source, size):
        # By blocks, not by runs: file systems tell the extents of the same content differently.
        for at in range(0, len(data), _BLOCK):
            digest.update((offset + at).to_bytes(8, "big"))
            digest.update(data[at : at + _BLOCK])
        view = memoryview(data)
        while view:
            written = os.pwrite(target, view, offset)
            view, offset = view[written:], offset + written
    return digest.hexdigest()


class SealedTemplate:
    """A template that is ready for use; holds its memory until `close`.

    memory_number: the descriptor by which a QEMU that was restored from it holds the memory, so
    that it can give some back (`discards`); None where that is not known or not to be had.
    """

    def __init__(
        self,
        digest: str,
        memory_fd: int,
        state: bytes,
        size: int,
        memory_number: int | None = None,
    ) -> None:
        self.digest = digest
        self.size = size
        self.memory_number = memory_number
        self._memory_fd = memory_fd
        self.state = state
        self._state_fd = make_memfd("vk-template-state", len(state))
        os.pwrite(self._state_fd, state, 0)
        seal(self._state_fd)

    @property
    def memory_fd(self) -> int:
        return self._memory_fd

    @contextmanager
    def in_use(self) -> Iterator[tuple[int, int]]:
        """Return descriptors of the memory and of the state, which is read from its beginning.

        They stay good when the template is closed meanwhile.
        """
        memory = os.dup(self._memory_fd)
        try:
            # A file offset of its own: a duplicate would share it with other restores.
            state = os.open(f"/proc/self/fd/{self._state_fd}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield memory, state
            finally:
                os.close(state)
        finally:
            os.close(memory)

    def close(self) -> None:
        """Let go of the memory; VMs that map it keep it. May be repeated."""
        for fd in (self._memory_fd, self._state_fd):
            if fd >= 0:
                os.close(fd)
        self._memory_fd = self._state_fd = -1


def load_memory(path: Path) -> tuple[int, int, str]:
    """Copy a saved memory to a sealed memfd; return it, its size and the checksum. For a thread."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        fd = make_memfd("vk-template-memory", size)
        try:
            checksum = copy_sparse(file.fileno(), fd, size)
            seal(fd)
        except BaseException:
            os.close(fd)
            raise
    return fd, size, checksum
