"""KVM or TCG: decided by booting a guest, once for each host kernel, QEMU and guest image."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from vk_provider.agent.hypervisor.command_line import CPU_MODEL
from vk_provider.agent.hypervisor.spec import AcceleratorInfo
from vk_provider.common.errors import FailedPrecondition, VkError
from vk_provider.common.logging import get_logger

_log = get_logger("hypervisor")

PROBE_S = 5.0
_KVM = Path("/dev/kvm")


@dataclass(frozen=True)
class KvmAccess:
    """Whether QEMU, which runs as no root, could open /dev/kvm, and with which groups."""

    usable: bool
    groups: tuple[int, ...]
    reason: str


def kvm_access(mode: int | None, gid: int) -> KvmAccess:
    """Judge by the device's mode and group; mode None: it is not there."""
    if mode is None:
        return KvmAccess(False, (), "this host has no /dev/kvm")
    if mode & 0o006 == 0o006:
        return KvmAccess(True, (), "/dev/kvm is open to all")
    if mode & 0o060 == 0o060 and gid != 0:
        return KvmAccess(True, (gid,), f"/dev/kvm is open to group {gid}")
    return KvmAccess(
        False,
        (),
        "/dev/kvm is root's alone and QEMU runs as no root; "
        "to use it: chgrp kvm /dev/kvm && chmod 660 /dev/kvm",
    )


def host_kvm_access() -> KvmAccess:
    """Judge this host's /dev/kvm."""
    try:
        status = _KVM.stat()
    except FileNotFoundError:
        return kvm_access(None, 0)
    return kvm_access(stat.S_IMODE(status.st_mode), status.st_gid)


def host_cpu() -> str:
    """Return what names the first CPU's model and features: under KVM a guest has seen them."""
    wanted = ("model name", "microcode", "flags")
    lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(wanted))


async def qemu_version(qemu: str) -> str:
    """Return QEMU's version, such as 7.2.22. Raises FailedPrecondition when it cannot be run."""
    if shutil.which(qemu) is None:
        raise FailedPrecondition(
            f"{qemu} is not on this host; install it (Debian: apt-get install qemu-system-x86)"
        )
    try:
        done = await asyncio.to_thread(
            subprocess.run,
            [qemu, "--version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return done.stdout.split("version ", 1)[1].split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as exc:
        raise FailedPrecondition(f"{qemu} --version does not work on this host: {exc}") from exc


async def decide_accelerator(
    cache: Path, version: str, guest_key: str, probe: Callable[[], Awaitable[None]]
) -> AcceleratorInfo:
    """Return what to use, and why.

    cache: a file that keeps the probe's answer; a damaged one is the same as none. probe: boots a
    guest under KVM; returns when it lives, raises VkError when it does not within PROBE_S.
    """
    access = host_kvm_access()
    if not access.usable:
        return AcceleratorInfo("tcg", access.reason, version)
    facts = [platform.release(), version, guest_key, CPU_MODEL, *map(str, access.groups)]
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    known = _read(cache, key)
    if known is not None:
        return AcceleratorInfo(known[0], known[1], version)
    try:
        await probe()
        name, reason = "kvm", "a probe guest booted under KVM"
    except VkError as exc:
        name = "tcg"
        why = " ".join(str(exc).split())[:300]
        reason = f"a probe guest did not boot under KVM within {PROBE_S:g} s: {why}"
    _log.info("probed the accelerator", accelerator=name, reason=reason)
    _write(cache, {"key": key, "name": name, "reason": reason})
    return AcceleratorInfo(name, reason, version)


def _read(cache: Path, key: str) -> tuple[str, str] | None:
    try:
        values = json.loads(cache.read_text())
        if values["key"] == key and values["name"] in ("kvm", "tcg"):
            return values["name"], str(values["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _write(cache: Path, values: dict[str, str]) -> None:
    part = cache.with_suffix(".part")
    try:
        part.write_text(json.dumps(values))
        os.replace(part, cache)  # noqa: PTH105 -- atomic over an old file
    except OSError as exc:
        _log.warning("the probe's answer cannot be kept", file=str(cache), error=str(exc))
