"""Kernel settings of a pod: which are safe, and how they are written (pkg/kubelet/sysctl)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SAFE = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
)
# The guest's kernel is the pod's own, so settings outside these trees would harm nobody else;
# they stay refused, as on every node, because pods would come to depend on this one.
_NAMESPACED = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.", "net.")


def dotted(name: str) -> str:
    """Return a name with `.` between its parts; those with `/` keep dots inside parts as `/`."""
    cut = next((index for index, char in enumerate(name) if char in "./"), None)
    if cut is None or name[cut] == ".":
        return name
    return name.translate(str.maketrans("./", "/."))


def sysctl_settings(sysctls: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return values by dotted name."""
    return {dotted(entry["name"]): entry["value"] for entry in sysctls}


def forbidden(sysctls: Iterable[Mapping[str, str]], allowed_unsafe: Iterable[str]) -> str | None:
    """Return why the pod may not set one of them, None where it may set all."""
    allowed = tuple(allowed_unsafe)
    for entry in sysctls:
        name = dotted(entry["name"])
        if name in SAFE:
            continue
        if any(_matches(name, pattern) for pattern in allowed) and name.startswith(_NAMESPACED):
            continue
        return f'forbidden sysctl: "{name}" not allowlisted'
    return None


def _matches(name: str, pattern: str) -> bool:
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return name == pattern
