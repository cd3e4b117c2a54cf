"""Assembles the guest image: vmlinux from a kernel package, and an initramfs with PID 1.

Python's standard library alone, so that it runs before any environment is there. What it writes
depends on its inputs only: fixed times and owners, sorted names.

usage: assemble.py KERNEL_ROOT VK_GUEST OUT, where KERNEL_ROOT is an unpacked kernel package (or
a folder with boot/vmlinux-RELEASE and lib/modules/RELEASE).
"""

from __future__ import annotations

import json
import lzma
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# What the guest loads, by when: PID 1 asks for each group by its name. A module that the kernel
# has built in is passed over; one that it lacks altogether is an error.
GROUPS: dict[str, list[str]] = {
    # Whatever need not wait for a device belongs here: a template has it loaded.
    "boot": [
        "virtio_mmio",
        "virtio_console",
        "virtio_scsi",
        "sd_mod",
        "virtio_balloon",
        "erofs",
        "overlay",
    ],
    # At an image disk that is no erofs.
    "squashfs": ["squashfs"],
    # Its device is probed at Configure: a restored template must not have done so before.
    "net": ["virtio_net"],
    "share": ["virtiofs"],
}
_LZ4_LEGACY = b"\x02\x21\x4c\x18"


@dataclass(frozen=True)
class Module:
    """A kernel module's file and what it depends on."""

    path: Path
    depends: tuple[str, ...]


def extract_vmlinux(bzimage: bytes) -> bytes:
    """Return the ELF kernel inside a bzImage (x86 boot protocol 2.08 or later), or the ELF."""
    if bzimage[:4] == b"\x7fELF":
        return bzimage
    if bzimage[0x202:0x206] != b"HdrS":
        raise SystemExit("guest-image: the kernel is neither a bzImage nor an ELF file")
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = bzimage[start : start + length]
    # The payload ends with its uncompressed size.
    body, size = payload[:-4], int.from_bytes(payload[-4:], "little")
    if body.startswith(_LZ4_LEGACY):
        kernel = subprocess.run(
            ["lz4", "-d", "-c", "-"], input=body, capture_output=True, check=True
        ).stdout
    elif body.startswith(b"\x28\xb5\x2f\xfd"):
        kernel = subprocess.run(
            ["zstd", "-d", "-c", "-"], input=body, capture_output=True, check=True
        ).stdout
    elif body.startswith(b"\xfd7zXZ"):
        kernel = lzma.decompress(body)
    else:
        raise SystemExit(f"guest-image: unknown kernel compression (begins {body[:4].hex()})")
    if kernel[:4] != b"\x7fELF" or len(kernel) != size:
        raise SystemExit("guest-image: the kernel's payload did not decompress to an ELF file")
    return kernel


def module_name(path: Path) -> str:
    """Return a module's name from its file's: virtio-rng.ko.xz is virtio_rng."""
    return path.name.split(".", 1)[0].replace("-", "_")


def module_bytes(path: Path) -> bytes:
    """Return a module as the kernel takes it, decompressed."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(
            ["zstd", "-d", "-c", "-"], input=data, capture_output=True, check=True
        ).stdout
    return data


def depends_of(module: bytes) -> tuple[str, ...]:
    """Return what a module's own information says that it depends on."""
    at = module.find(b"\0depends=")
    if at < 0:
        return ()
    value = module[at + 9 : module.index(b"\0", at + 9)].decode()
    return tuple(name.replace("-", "_") for name in value.split(",") if name)


def load_order(wanted: list[str], modules: dict[str, Module], built_in: set[str]) -> list[str]:
    """Return the names to load, each after what it depends on."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order or name in built_in:
            return
        if name not in modules:
            raise SystemExit(f"guest-image: the kernel has no module {name}")
        for dependency in modules[name].depends:
            visit(dependency)
        order.append(name)

    for name in wanted:
        visit(name)
    return order


class Cpio:
    """An archive in the "newc" format that the kernel unpacks as its first root."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._inode = 0

    def add(
        self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        """Add a file, folder or device node; owner root, time 0."""
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        self._out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._pad()
        self._out += data
        self._pad()

    def finish(self) -> bytes:
        """Return the archive."""
        self.add("TRAILER!!!", 0)
        self._out += bytes(-len(self._out) % 512)
        return bytes(self._out)

    def _pad(self) -> None:
        self._out += bytes(-len(self._out) % 4)


def read_modules(folder: Path) -> tuple[dict[str, Module], set[str]]:
    """Return the modules below lib/modules/RELEASE, and the names of those built in."""
    modules = {
        module_name(path): Module(path, depends_of(module_bytes(path)))
        for path in sorted(folder.rglob("*.ko*"))
        if path.is_file()
    }
    built_in_list = folder / "modules.builtin"
    lines = built_in_list.read_text().splitlines() if built_in_list.exists() else []
    return modules, {module_name(Path(line)) for line in lines}


def make_initramfs(guest: bytes, groups: dict[str, list[str]], modules: dict[str, Module]) -> bytes:
    """Return the archive: PID 1, a console for the kernel's own messages, the modules."""
    cpio = Cpio()
    for folder in ("dev", "modules", "proc", "root", "run", "sys"):
        cpio.add(folder, 0o040755)
    cpio.add("dev/console", 0o020600, device=(5, 1))
    cpio.add("dev/null", 0o020666, device=(1, 3))
    cpio.add("init", 0o100755, guest)
    for name in sorted({name for names in groups.values() for name in names}):
        cpio.add(f"modules/{name}.ko", 0o100644, module_bytes(modules[name].path))
    order = "".join(f"{group} {name}.ko\n" for group, names in groups.items() for name in names)
    cpio.add("modules/order", 0o100644, order.encode())
    return cpio.finish()


def main() -> None:
    """Assemble an image from the command line's arguments."""
    kernel_root, guest, out = (Path(argument) for argument in sys.argv[1:])
    boot = sorted((kernel_root / "boot").glob("vmlinu[xz]-*"))
    if len(boot) != 1:
        raise SystemExit(f"guest-image: {kernel_root}/boot holds {len(boot)} kernels, not one")
    release = boot[0].name.split("-", 1)[1]
    folder = kernel_root / "lib/modules" / release
    if not folder.is_dir():
        folder = kernel_root / "usr/lib/modules" / release
    modules, built_in = read_modules(folder)
    groups = {group: load_order(names, modules, built_in) for group, names in GROUPS.items()}
    (out / "vmlinux").write_bytes(extract_vmlinux(boot[0].read_bytes()))
    (out / "initramfs.cpio").write_bytes(make_initramfs(guest.read_bytes(), groups, modules))
    print(json.dumps({"kernel_release": release}))


if __name__ == "__main__":
    main()
