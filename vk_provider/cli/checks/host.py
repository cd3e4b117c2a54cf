"""The host: rights, tools, kernel, places, memory, ports."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vk_provider.cli.checks.model import Finding, doubtful, failed, ok

_GIB = 1 << 30
_TMPFS = 0x01021994
_RAMFS = 0x858458F6
# Each program: what it is for, and the Debian package that has it.
_TOOLS = {
    "skopeo": ("fetches images", "skopeo"),
    "umoci": ("unpacks images", "umoci"),
    "mkfs.erofs": ("packs images", "erofs-utils"),
    "mkfs.ext4": ("makes scratch disks", "e2fsprogs"),
    "nft": ("masquerades the built-in network", "nftables"),
    "iptables": ("used by CNI's portmap", "iptables"),
    "setpriv": ("ties processes to `run`", "util-linux"),
}
_PLUGINS = ("bridge", "host-local", "portmap", "loopback")


def check_rights() -> Finding:
    """Root, for microVMs' networks, cgroups and users."""
    if os.geteuid() == 0:
        return ok("rights", "root")
    return failed("rights", f"user {os.geteuid()}", "run the agent, and this command, as root")


def check_tools(which: Callable[[str], str | None] = shutil.which) -> Iterator[Finding]:
    """The programs that the agent calls."""
    for tool, (purpose, package) in _TOOLS.items():
        path = which(tool)
        if path:
            yield ok(tool, path)
        else:
            yield failed(tool, f"not here ({purpose})", f"apt-get install {package}")


def check_plugins(folders: Iterable[Path]) -> Finding:
    """CNI's plugins, for the built-in network or a conflist."""
    places = list(folders)
    missing = [p for p in _PLUGINS if not any((f / p).is_file() for f in places)]
    shown = ", ".join(map(str, places))
    if missing:
        return failed(
            "CNI plugins",
            f"{', '.join(missing)} not in {shown}",
            "apt-get install containernetworking-plugins, or name their folder with --cni-bin-dir",
        )
    return ok("CNI plugins", shown)


def check_tun() -> Finding:
    """/dev/net/tun, through which a VM's packets go."""
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        return failed("tun device", f"/dev/net/tun: {exc.strerror}", "modprobe tun")
    os.close(descriptor)
    return ok("tun device", "/dev/net/tun opens")


def check_links(run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run) -> Finding:
    """Namespaces, veth, bridge, tap and traffic redirection, tried in a namespace of its own."""
    script = (
        "ip link add vkd0 type veth peer name vkd1 && ip link add vkd2 type bridge && "
        "ip tuntap add vkd3 mode tap && tc qdisc add dev vkd0 ingress && "
        "tc filter add dev vkd0 parent ffff: protocol all u32 match u8 0 0 "
        "action mirred egress redirect dev vkd3 && nft list ruleset >/dev/null"
    )
    command = ["unshare", "--net", "sh", "-c", script]
    mend = "the host's kernel needs network namespaces, veth, bridge, tun, sch_ingress, cls_u32, "
    mend += "act_mirred and nf_tables (modprobe them, or take the distribution's kernel)"
    try:
        done = run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return failed("kernel's network", str(exc), mend)
    if done.returncode != 0:
        return failed("kernel's network", done.stderr.strip() or "refused", mend)
    return ok("kernel's network", "namespaces, veth, bridge, tap, redirection, nftables")


def check_forwarding(proc: Path = Path("/proc/sys")) -> Finding:
    """IP forwarding, which the agent switches on for its built-in network."""
    try:
        value = (proc / "net/ipv4/ip_forward").read_text().strip()
    except OSError as exc:
        return doubtful("IP forwarding", str(exc), "sysctl -w net.ipv4.ip_forward=1")
    if value == "1":
        return ok("IP forwarding", "on")
    return doubtful(
        "IP forwarding",
        "off; the agent will switch it on for its built-in network",
        "sysctl -w net.ipv4.ip_forward=1, and in /etc/sysctl.d to keep it",
    )


def check_disk(what: str, folder: Path, least_bytes: int = 10 * _GIB) -> Finding:
    """Room and inodes where something is kept."""
    place = _existing(folder)
    try:
        fs = os.statvfs(place)
    except OSError as exc:
        return failed(what, f"{place}: {exc.strerror}", f"make {folder} usable, or choose another")
    free = fs.f_bavail * fs.f_frsize
    found = f"{free / _GIB:.1f} GiB free on {place}"
    if fs.f_files and fs.f_favail < fs.f_files * 0.05:
        return doubtful(what, f"{fs.f_favail} inodes left on {place}", "remove what is not needed")
    if free < least_bytes:
        mend = f"make room: at least {least_bytes // _GIB} GiB, for images and pods' disks"
        return (failed if free < _GIB else doubtful)(what, found, mend)
    return ok(what, found)


def check_run_dir(folder: Path) -> Finding:
    """A tmpfs, for what must be gone with the next boot."""
    place = _existing(folder)
    try:
        done = subprocess.run(
            ["stat", "-f", "-c", "%t", str(place)], capture_output=True, text=True, check=True
        )
        kind = int(done.stdout.strip(), 16)
    except (OSError, ValueError, subprocess.CalledProcessError) as exc:
        return doubtful("run folder", str(exc), "name a folder on a tmpfs with --agent-run-dir")
    if kind in {_TMPFS, _RAMFS}:
        return ok("run folder", f"{place} is in memory")
    return doubtful(
        "run folder",
        f"{folder} is on a disk, where sockets of VMs outlive a reboot",
        "name a folder on a tmpfs with --agent-run-dir (systemd makes /run one)",
    )


def check_memory(meminfo: Path = Path("/proc/meminfo")) -> Finding:
    """Memory for pods."""
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError) as exc:
        return doubtful("memory", f"{meminfo}: {exc}", "mount /proc")
    found = f"{available / _GIB:.1f} GiB available"
    if available < _GIB:
        return doubtful("memory", found, "a pod of the smallest size takes half a GiB")
    return ok("memory", found)


def check_swap(swaps: Path = Path("/proc/swaps"), sys: Path = Path("/sys")) -> Finding:
    """Whether the memory of VMs, and secrets with it, may be written to a disk in clear."""
    try:
        places = [line.rsplit(maxsplit=4)[0] for line in swaps.read_text().splitlines()[1:]]
    except OSError as exc:
        return doubtful("swap", f"{swaps}: {exc.strerror}", "mount /proc")
    clear = [place for place in places if not _kept_secret(place, sys)]
    if clear:
        return doubtful(
            "swap",
            f"{', '.join(clear)} is not encrypted, and pods' memory (secrets too) may get there",
            "swapoff -a, or swap to an encrypted device (crypttab's option `swap`) or to zram",
        )
    return ok("swap", ", ".join(places) or "none")


def _kept_secret(swap: str, sys: Path) -> bool:
    """Whether what is swapped there is encrypted, or stays in memory."""
    try:
        found = Path(swap).stat()
    except OSError:
        return False
    # A file is as secret as the device of its file system.
    number = found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev
    device = sys / "dev/block" / f"{os.major(number)}:{os.minor(number)}"
    return _encrypted(device.resolve())


def _encrypted(device: Path) -> bool:
    if device.name.startswith("zram"):
        return True
    with contextlib.suppress(OSError):
        if (device / "dm/uuid").read_text().startswith("CRYPT-"):
            return True
    below = list((device / "slaves").glob("*"))
    return bool(below) and all(_encrypted(lower.resolve()) for lower in below)


def check_cgroups(root: Path = Path("/sys/fs/cgroup")) -> Finding:
    """A hierarchy that can be written, to bound VMs."""
    two = (root / "cgroup.controllers").is_file()
    places = [root] if two else [root / c for c in ("cpu", "memory", "pids")]
    closed = [str(p) for p in places if not os.access(p, os.W_OK)]
    kind = "version 2" if two else "version 1"
    if closed:
        return failed(
            "cgroups",
            f"{', '.join(closed)} can't be written",
            "mount the cgroup file system read-write",
        )
    return ok("cgroups", kind)


def check_port(what: str, address: str, port: int) -> Finding:
    """Whether a port is free, or already ours."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return doubtful(
                    what,
                    f"{address}:{port} is taken (well, if this is the node that already runs)",
                    "end what listens there (ss -ltnp), or choose another port",
                )
            return failed(
                what, f"{address}:{port}: {exc.strerror}", "choose an address of this host"
            )
    return ok(what, f"{address}:{port} is free")


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(p for p in (folder, *folder.parents) if p.exists())
