"""A whole local cluster, brought up and taken down in order; what it does is told to `say`."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hack.devcluster import control_plane, csr, leftovers
from hack.devcluster.demo import Kubectl
from hack.devcluster.processes import Record, records, running, spawn, stop, tail
from hack.devcluster.settings import ROOT, ClusterSettings

Say = Callable[[str], None]


@dataclass(frozen=True)
class Builds:
    """Folders of what was built."""

    control_plane: Path
    guest_image: Path
    test_images: Path


def start_control_plane(settings: ClusterSettings, builds: Builds, say: Say) -> Kubectl:
    """Start etcd, the API server, the controller manager and the scheduler."""
    say(f"Starting the control plane on {settings.api_url} (for this host and its pods)")
    control_plane.start(settings, builds.control_plane)
    return Kubectl(builds.control_plane / "kubectl", settings.admin_kubeconfig)


def start_registry(settings: ClusterSettings, builds: Builds, say: Say) -> None:
    """Start the local registry and put the test images into it."""
    if running(settings, "registry"):
        return
    say(f"Starting a registry on {settings.registry} with images made from Debian's packages")
    config = settings.directory / "registry.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {settings.directory / 'registry'}}}}}\n"
        f"http: {{addr: {settings.registry}}}\n"
    )
    spawn(settings, "registry", ["docker-registry", "serve", str(config)])
    subprocess.run([str(ROOT / "hack" / "test-images"), "push", settings.registry], check=True)
    registries = settings.directory / "registries.conf"
    registries.write_text(f'[[registry]]\nlocation = "{settings.registry}"\ninsecure = true\n')


def agent_command(settings: ClusterSettings, builds: Builds) -> list[str]:
    """Return the options that `vk-provider agent` and `run` share."""
    note = settings.directory / "guest-image"
    note.write_text(str(builds.guest_image))  # for take_down, which builds nothing
    return agent_options(settings)


def agent_options(settings: ClusterSettings) -> list[str]:
    """Return the agent's options of a cluster that was started before."""
    return [
        f"--agent-state-dir={settings.directory / 'agent'}",
        f"--agent-run-dir={settings.run_directory / 'agent'}",
        f"--agent-socket={settings.agent_socket}",
        f"--log-dir={settings.log_directory}",
        f"--guest-image={(settings.directory / 'guest-image').read_text()}",
        f"--registries-conf={settings.directory / 'registries.conf'}",
    ]


def node_command(settings: ClusterSettings) -> list[str]:
    """Return the options that `vk-provider node` and `run` share."""
    return [
        f"--node-name={settings.node_name}",
        f"--bootstrap-kubeconfig={control_plane.write_bootstrap_kubeconfig(settings)}",
        f"--state-dir={settings.directory / 'node'}",
        f"--agent-socket={settings.agent_socket}",
        f"--node-ip={settings.api_address}",
        f"--listen-address={settings.api_address}",
    ]


def wait_node_ready(
    settings: ClusterSettings, builds: Builds, kubectl: Kubectl, processes: list[str]
) -> None:
    """Approve the node's serving certificate and return when the node is Ready."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for name in processes:
            if running(settings, name) is None:
                raise SystemExit(
                    f"{name} ended while starting; its last words:\n{tail(settings, name, 40)}"
                )
        csr.approve_serving(kubectl, settings)
        nodes = kubectl.json("get", "nodes")["items"]
        mine = [n for n in nodes if n["metadata"]["name"] == settings.node_name]
        conditions = mine[0]["status"].get("conditions", []) if mine else []
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if ready and _reaches_node(kubectl, settings):
            control_plane.start_proxy(settings, builds.control_plane)
            return
        time.sleep(0.2)
    raise SystemExit(
        f"node {settings.node_name} was not Ready after 90 s; last words:\n"
        + "\n".join(f"{name}:\n{tail(settings, name, 30)}" for name in processes)
    )


def _reaches_node(kubectl: Kubectl, settings: ClusterSettings) -> bool:
    """Tell whether the API server can speak to the node: it trusts its serving certificate now."""
    try:
        kubectl.run("get", "--raw", f"/api/v1/nodes/{settings.node_name}/proxy/healthz")
    except SystemExit:
        return False
    return True


def take_down(settings: ClusterSettings, say: Say) -> None:
    """End and remove all that was started or made on the host for this cluster."""
    for name in ("vk-provider", "node", "agent"):
        if (record := running(settings, name)) is not None:
            _stop(settings, record, say)
    if (settings.directory / "agent").exists():
        say("Removing every pod's microVM, network and files")
        options = [*agent_options(settings), "--remove-all", "--log-level=warning"]
        subprocess.run(["vk-provider", "agent", *options], check=True)
    for record in reversed(records(settings)):
        _stop(settings, record, say)
    if Path(f"/sys/class/net/{settings.api_link}").exists():
        say(f"Removing the network interface {settings.api_link}")
        subprocess.run(["ip", "link", "delete", settings.api_link], check=True)
    for family, table in leftovers.tables():
        say(f"Removing the nftables table {family} {table}")
        subprocess.run(["nft", "delete", "table", family, table], check=True)
    for directory in (settings.directory, settings.run_directory):
        say(f"Removing {directory}")
        shutil.rmtree(directory)


def _stop(settings: ClusterSettings, record: Record, say: Say) -> None:
    say(f"Stopping {record.name} (pid {record.pid})")
    stop(settings, record)
