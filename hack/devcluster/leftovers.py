"""What a host of microVMs can be left with, looked for by name and by place."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.devcluster.processes import records
from hack.devcluster.settings import ClusterSettings
from vk_provider.agent.hypervisor import instance_name
from vk_provider.agent.network.settings import NetworkSettings

_BRIDGE = str(NetworkSettings.bridge)


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
        ("network interfaces", f"vk* (also {settings.api_link}), taps, ports of {_BRIDGE}", _links),
        (
            "mounts",
            f"below {settings.run_directory} and {settings.directory}, /run/netns/vk-*",
            _mounts,
        ),
        ("cgroups", "this agent's below /sys/fs/cgroup/**/vk-provider", _cgroups),
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
    mark = f"{settings.run_directory}/agent/".encode()
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
    links = Path("/sys/class/net")
    ours = {p.name for p in links.iterdir() if p.name.startswith(("vk", "tapvk"))}
    # CNI's bridge plugin gives pods' host ends names of chance; what they hang on tells them.
    ours |= {p.name for p in (links / _BRIDGE / "brif").glob("*")}
    return sorted(ours if settings.own_control_plane else ours - {settings.api_link})


def _mounts(settings: ClusterSettings) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = (f"{settings.run_directory}/", f"{settings.directory}/", "/run/netns/vk-")
    return sorted(p for p in points if p.startswith(inside))


def _cgroups(settings: ClusterSettings) -> list[str]:
    # Each agent has a group of its own there; another one's on the same host are not ours.
    mine = instance_name(settings.directory / "agent" / "hypervisor")
    root = Path("/sys/fs/cgroup")
    patterns = (f"vk-provider/{mine}", f"*/vk-provider/{mine}")
    return sorted({str(p) for pattern in patterns for p in root.glob(pattern)})


def tables(settings: ClusterSettings) -> list[tuple[str, str]]:
    """Return the nftables tables of kube-proxy and of the built-in network: family and name."""
    listed = [item["table"] for item in _ruleset() if "table" in item]
    ours = ("kube-proxy", "vk_provider") if settings.own_control_plane else ("vk_provider",)
    return sorted((t["family"], t["name"]) for t in listed if t["name"].startswith(ours))


def _tables(settings: ClusterSettings) -> list[str]:
    chains = [item["chain"] for item in _ruleset() if "chain" in item]
    cni = [f"chain {c['table']} {c['name']}" for c in chains if c["name"].startswith("CNI-")]
    return [f"table {family} {name}" for family, name in tables(settings)] + sorted(cni)


def _ruleset() -> list[dict[str, Any]]:
    done = subprocess.run(
        ["nft", "--json", "list", "ruleset"], check=True, capture_output=True, text=True
    )
    return list(json.loads(done.stdout)["nftables"])


def _files(settings: ClusterSettings) -> list[str]:
    places = [settings.directory, settings.run_directory]
    found = [str(p) for p in places if p.exists()]
    if settings.log_directory.is_dir():
        found += [str(p) for p in settings.log_directory.iterdir()]
    return found
