"""What a host of microVMs can be left with, looked for by name and by place."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hack.devcluster.processes import records
from hack.devcluster.settings import ClusterSettings


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was looked for, and what was found of it."""

    what: str
    where: str
    found: list[str]


def look(settings: ClusterSettings) -> list[Finding]:
    """Return every kind of leftover with what there is of it now."""
    kinds: list[tuple[str, str, Callable[[ClusterSettings], list[str]]]] = [
        (
            "processes",
            f"records in {settings.records}, command lines naming {settings.run_directory}",
            _processes,
        ),
        ("network namespaces", "/run/netns/vk-*", _namespaces),
        ("network interfaces", f"{settings.api_link}, vk*, veths and taps of pods", _links),
        (
            "mounts",
            f"below {settings.run_directory} and {settings.directory}, /run/netns/vk-*",
            _mounts,
        ),
        ("cgroups", "/sys/fs/cgroup/**/vk-provider*", _cgroups),
        ("nftables tables", "kube-proxy, vk_provider*, CNI chains", _tables),
        (
            "files",
            f"{settings.directory}, {settings.run_directory}, {settings.log_directory}",
            _files,
        ),
    ]
    return [Finding(what, where, finder(settings)) for what, where, finder in kinds]


def _processes(settings: ClusterSettings) -> list[str]:
    found = [f"{r.name} (pid {r.pid})" for r in records(settings) if r.alive]
    mark = f"{settings.run_directory}/".encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"qemu-system" in words and mark in words:
            found.append(f"QEMU (pid {entry.parent.name})")
    return found


def _namespaces(_: ClusterSettings) -> list[str]:
    return sorted(p.name for p in Path("/run/netns").glob("vk-*"))


def _links(settings: ClusterSettings) -> list[str]:
    names = [p.name for p in Path("/sys/class/net").iterdir()]
    return sorted(n for n in names if n == settings.api_link or n.startswith(("vk", "tapvk")))


def _mounts(settings: ClusterSettings) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = (f"{settings.run_directory}/", f"{settings.directory}/", "/run/netns/vk-")
    return sorted(p for p in points if p.startswith(inside))


def _cgroups(_: ClusterSettings) -> list[str]:
    root = Path("/sys/fs/cgroup")
    return sorted(
        {str(p) for pattern in ("vk-provider*", "*/vk-provider*") for p in root.glob(pattern)}
    )


def _tables(_: ClusterSettings) -> list[str]:
    listed = subprocess.run(
        ["nft", "--json", "list", "ruleset"], check=True, capture_output=True, text=True
    ).stdout
    found: list[str] = []
    for item in json.loads(listed)["nftables"]:
        if (table := item.get("table")) and table["name"].startswith(
            ("kube-proxy", "vk_provider", "vk-provider")
        ):
            found.append(f"table {table['family']} {table['name']}")
        if (chain := item.get("chain")) and chain["name"].startswith("CNI-"):
            found.append(f"chain {chain['family']} {chain['table']} {chain['name']}")
    return sorted(found)


def _files(settings: ClusterSettings) -> list[str]:
    places = [settings.directory, settings.run_directory]
    found = [str(p) for p in places if p.exists()]
    if settings.log_directory.is_dir():
        found += [str(p) for p in settings.log_directory.iterdir()]
    return found
