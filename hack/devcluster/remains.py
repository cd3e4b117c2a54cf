"""All that pods have on the host, by kind: it must be the same before them and after them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil

from hack.devcluster.leftovers import look
from hack.devcluster.settings import ClusterSettings
from vk_provider.agent.hypervisor import instance_name

_KINDS = ("network namespaces", "mounts", "nftables tables")


def remains(settings: ClusterSettings) -> dict[str, list[str]]:
    """Return the names of what is there now, of each kind.

    For tests and benchmarks, which run in namespaces of their own: there every process and
    interface is this run's (veths have no name of ours).
    """
    agent = settings.directory / "agent"
    found = {finding.what: finding.found for finding in look(settings) if finding.what in _KINDS}
    processes = (process.info["name"] for process in psutil.process_iter(["name"]))
    found["processes"] = sorted(name for name in processes if name != "kubectl")
    found["interfaces"] = _names(Path("/sys/class/net").iterdir())
    found["cgroups"] = sorted(set(_names(_cgroups(settings))))  # one for each controller, in v1
    for what, folder in (
        ("sandboxes on disk", agent / "sandboxes"),
        ("sandboxes' sockets", settings.run_directory / "agent" / "sandboxes"),
        ("attachments", agent / "network" / "attachments"),
        ("images half made", agent / "images" / "work"),
        ("templates half made", settings.run_directory / "agent" / "hypervisor"),
        ("log folders", settings.log_directory),
    ):
        found[what] = _names(folder.iterdir()) if folder.is_dir() else []
    leases = (agent / "network" / "ipam").rglob("*.*.*.*")
    found["addresses"] = _names(path for path in leases if path.name[0].isdigit())
    return found


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, str]:
    """Return the kinds that differ, and how."""
    return {
        what: f"{before[what]} before, {after[what]} after"
        for what in before
        if before[what] != after[what]
    }


def _names(paths: Iterable[Path]) -> list[str]:
    return sorted(path.name for path in paths)


def _cgroups(settings: ClusterSettings) -> list[Path]:
    mine = instance_name(settings.directory / "agent" / "hypervisor")
    root = Path("/sys/fs/cgroup")
    found = [p for pattern in ("", "*/") for p in root.glob(f"{pattern}vk-provider/{mine}/**/")]
    return [path for path in found if path.name != mine]
