"""The kernel and initramfs that every VM boots, as `hack/guest-image` leaves them."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vk_provider.common.errors import Invalid


@dataclass(frozen=True)
class GuestImage:
    """A folder with `vmlinux`, an initramfs and `manifest.json`; `key` is the hash of it all."""

    directory: Path
    kernel: Path
    initramfs: Path
    key: str
    kernel_release: str

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a folder's manifest. Raises Invalid when it is no guest image."""
        manifest = directory / "manifest.json"
        try:
            values = json.loads(manifest.read_text())
            key, release = str(values["key"]), str(values["kernel_release"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise Invalid(
                f"{directory} is no guest image: its manifest.json cannot be used ({exc!r}); "
                "build one with hack/guest-image"
            ) from exc
        kernel = directory / "vmlinux"
        found = sorted(directory.glob("initramfs.cpio*"))
        if not kernel.is_file() or not found:
            raise Invalid(
                f"{directory} is no complete guest image: it lacks vmlinux or initramfs.cpio; "
                "build it again with hack/guest-image"
            )
        for path in (kernel, found[0]):
            if not path.stat().st_mode & stat.S_IROTH:
                raise Invalid(
                    f"{path} is not readable for QEMU, which runs as no root; "
                    f"allow it with chmod o+r {path}"
                )
        return cls(directory, kernel, found[0], key, release)
