"""Linux capabilities of a container: containerd's default set, with the pod's additions."""

from __future__ import annotations

from collections.abc import Sequence

from vk_provider.common.errors import Invalid

ALL = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip
DEFAULT = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP",
    "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip


def capabilities(add: Sequence[str], drop: Sequence[str], *, privileged: bool) -> list[str]:
    """Return the names, CAP_ first, in the kernel's order. Raises Invalid for unknown ones.

    `ALL` stands for every one, in both lists; what is named outright wins over ALL.
    """
    added, dropped = _names(add), _names(drop)
    held = set(ALL if privileged or "ALL" in added else DEFAULT)
    if "ALL" in dropped:
        held = set()
    held = (held | added) - dropped
    return [f"CAP_{name}" for name in ALL if name in held]


def _names(words: Sequence[str]) -> set[str]:
    names = {word.upper().removeprefix("CAP_") for word in words}
    if unknown := sorted(names - {*ALL, "ALL"}):
        raise Invalid(f"Linux has no capability {', '.join(unknown)}")
    return names
