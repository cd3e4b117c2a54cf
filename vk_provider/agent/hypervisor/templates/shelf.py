"""Templates on disk: a folder for each, complete or not there.

A folder is filled under another name and renamed last; its manifest holds the checksums, so what
a power cut or a bad disk has torn is noticed before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from vk_provider.agent.hypervisor.templates.sealed import SealedTemplate, copy_sparse, load_memory
from vk_provider.common.errors import Exhausted, Internal, NotFound, Unavailable

_PART = ".part"
_NAME = re.compile(r"[0-9a-f]{32}")
_MANIFEST_VERSION = 3
"""Also of the rule by which the checksum is made."""
_UNUSED_S = 14 * 24 * 3600.0
_MAX_TSC_DRIFT = 1e-4
"""How far the host's TSC may be from the one that the guest was told at its boot."""


@dataclass(frozen=True)
class Entry:
    """A complete folder: its size on disk, and when it was last used (seconds since the epoch)."""

    digest: str
    size_bytes: int
    used_at: float


def choose_victims(
    entries: list[Entry],
    *,
    keep: frozenset[str],
    now: float,
    space_bytes: int,
    missing_bytes: int,
) -> list[str]:
    """Return which templates to remove, the least recently used first. Pure.

    keep: never removed. space_bytes: what all may take together. missing_bytes: how much the file
    system lacks. Those that nobody used for two weeks go in any case.
    """
    victims: list[str] = []
    total = sum(e.size_bytes for e in entries)
    for entry in sorted(entries, key=lambda e: e.used_at):
        if entry.digest in keep:
            continue
        unused = now - entry.used_at > _UNUSED_S
        if unused or total > space_bytes or missing_bytes > 0:
            victims.append(entry.digest)
            total -= entry.size_bytes
            missing_bytes -= entry.size_bytes
    return victims


class Shelf:
    """The folder of all templates. Methods that read or write much are for threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self) -> list[str]:
        """Make the folder and remove what a killed agent left half done; return their names."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        left = [path for path in self._directory.iterdir() if not _NAME.fullmatch(path.name)]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return [path.name for path in left]

    def has(self, digest: str) -> bool:
        return (self._directory / digest).is_dir()

    def entries(self) -> list[Entry]:
        found = []
        for path in self._directory.iterdir():
            if not _NAME.fullmatch(path.name):
                continue
            try:
                size = sum(file.stat().st_blocks * 512 for file in path.iterdir())
                used_at = (path / "manifest.json").stat().st_mtime
            except OSError:
                size, used_at = 0, 0.0  # torn: the first to go
            found.append(Entry(path.name, size, used_at))
        return found

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._directory).free

    def save(self, template: SealedTemplate, tsc_khz: int) -> None:
        """Write a template. Raises Exhausted for a full disk, Unavailable for other failures."""
        part = self._directory / f"{template.digest}{_PART}"
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(mode=0o700)
            # A descriptor of our own: the template may be closed while this thread copies it.
            with template.in_use() as (memory, _), (part / "memory").open("wb") as file:
                checksum = copy_sparse(memory, file.fileno(), template.size)
                os.fsync(file.fileno())
            (part / "state").write_bytes(template.state)
            manifest = {
                "version": _MANIFEST_VERSION,
                "memory_sha256": checksum,
                "state_sha256": hashlib.sha256(template.state).hexdigest(),
                "tsc_khz": tsc_khz,
                "memory_number": template.memory_number,
            }
            (part / "manifest.json").write_text(json.dumps(manifest))
            self.remove(template.digest)
            part.rename(self._directory / template.digest)
        except OSError as exc:
            shutil.rmtree(part, ignore_errors=True)
            kind = Exhausted if exc.errno in (28, 122) else Unavailable  # ENOSPC, EDQUOT
            raise kind(f"template {template.digest} cannot be kept on disk: {exc}") from exc

    def load(self, digest: str, tsc_khz: int) -> SealedTemplate:
        """Read a template into memory and verify it.

        Raises NotFound without one, Internal for one that is torn or does not fit this host.
        """
        folder = self._directory / digest
        if not folder.is_dir():
            raise NotFound(f"there is no template {digest}")
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
            state = (folder / "state").read_bytes()
            if manifest["version"] != _MANIFEST_VERSION:
                raise Internal(f"template {digest} was written by another version of the agent")
            wanted = (manifest["memory_sha256"], manifest["state_sha256"])
            told_khz = int(manifest["tsc_khz"])
            number = None if manifest["memory_number"] is None else int(manifest["memory_number"])
            fd, size, checksum = load_memory(folder / "memory")
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise Internal(f"template {digest} is torn: {exc!r}") from exc
        found = (checksum, hashlib.sha256(state).hexdigest())
        drift = abs(told_khz - tsc_khz) / max(tsc_khz, 1)
        if wanted != found or drift > _MAX_TSC_DRIFT:
            os.close(fd)
            why = "its checksums are wrong" if wanted != found else "the host's clock is another"
            raise Internal(f"template {digest} cannot be used: {why}")
        self.touch(digest)
        return SealedTemplate(digest, fd, state, size, number)

    def touch(self, digest: str) -> None:
        """Note that a template is used now."""
        now = time.time()
        try:
            os.utime(self._directory / digest / "manifest.json", (now, now))
        except OSError:
            return  # it is only used for the order of removal

    def remove(self, digest: str) -> None:
        """Remove a template, in one step for whoever looks on. May be repeated.

        Raises OSError when the disk does not let go of it.
        """
        gone = self._directory / f"{digest}.gone"
        shutil.rmtree(gone, ignore_errors=True)
        try:
            (self._directory / digest).rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone)
