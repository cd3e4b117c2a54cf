"""A whole local cluster, brought up and taken down in order; what it does is told to `say`."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hack.devcluster import bootstrap, control_plane, csr, joined, leftovers
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
    settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
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
    """Return the options that `vk-provider node` and `run` share, in the local cluster."""
    return node_options(settings, control_plane.write_bootstrap_kubeconfig(settings))


def node_options(settings: ClusterSettings, bootstrap_kubeconfig: Path) -> list[str]:
    """Return the node's options in any cluster."""
    return [
        f"--node-name={settings.node_name}",
        f"--bootstrap-kubeconfig={bootstrap_kubeconfig}",
        f"--state-dir={settings.directory / 'node'}",
        f"--agent-socket={settings.agent_socket}",
        f"--node-ip={settings.node_address}",
        f"--listen-address={settings.node_address}",
    ]


def join(
    settings: ClusterSettings, builds: Builds, kubeconfig: Path, say: Say
) -> tuple[ClusterSettings, Kubectl]:
    """Start registry, node and agent, and return when the node is Ready in a cluster that exists.

    `kubeconfig` is an administrator's: it makes a bootstrap token and approves the serving
    certificate. What is returned speaks of that cluster.
    """
    kubectl = Kubectl(builds.control_plane / "kubectl", kubeconfig)
    joined.check_one_cluster(settings, kubeconfig)
    joined.check_rights(kubectl)
    server = joined.cluster_entry(kubectl)
    address = joined.own_address(server["server"])
    settings = replace(settings, node_address=address, own_control_plane=False)
    start_registry(settings, builds, say)
    say(f"Joining {server['server']} as node {settings.node_name} at {settings.node_address}")
    joined.admit(settings, kubectl)
    options = node_options(settings, bootstrap.write_kubeconfig(settings, server))
    command = [*agent_command(settings, builds), *options]
    spawn(settings, "vk-provider", ["vk-provider", "run", *command])
    _wait_node_ready(settings, kubectl, ["vk-provider"])
    return settings, kubectl


def wait_node_ready(
    settings: ClusterSettings, builds: Builds, kubectl: Kubectl, processes: list[str]
) -> None:
    """Return when the node is Ready in the local cluster and kube-proxy runs beside it."""
    _wait_node_ready(settings, kubectl, processes)
    control_plane.start_proxy(settings, builds.control_plane)


def _wait_node_ready(settings: ClusterSettings, kubectl: Kubectl, processes: list[str]) -> None:
    """Approve the node's serving certificate and return when the node is Ready."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for name in processes:
            if running(settings, name) is None:
                raise SystemExit(
                    f"{name} ended while starting; its last words:\n{tail(settings, name, 40)}"
                )
        csr.approve_serving(kubectl, settings)
        selector = f"--field-selector=metadata.name={settings.node_name}"
        mine = kubectl.json("get", "nodes", selector)["items"]
        conditions = mine[0]["status"].get("conditions", []) if mine else []
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if ready and _reaches_node(kubectl, settings):
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
    """End and remove all that was started or made on the host, and in a cluster that was joined."""
    joined.end_demo(settings, say)
    for name in ("vk-provider", "node", "agent"):
        if (record := running(settings, name)) is not None:
            _stop(settings, record, say)
    joined.retire(settings, say)
    if (settings.directory / "agent").exists():
        say("Removing every pod's microVM, network and files")
        options = [*agent_options(settings), "--remove-all", "--log-level=warning"]
        subprocess.run(["vk-provider", "agent", *options], check=True)
    for record in reversed(records(settings)):
        _stop(settings, record, say)
    if settings.own_control_plane and Path(f"/sys/class/net/{settings.api_link}").exists():
        say(f"Removing the network interface {settings.api_link}")
        subprocess.run(["ip", "link", "delete", settings.api_link], check=True)
    for family, table in leftovers.tables(settings):
        say(f"Removing the nftables table {family} {table}")
        subprocess.run(["nft", "delete", "table", family, table], check=True)
    for directory in (settings.directory, settings.run_directory):
        if directory.exists():  # what failed early has made one of them only
            say(f"Removing {directory}")
            shutil.rmtree(directory)


def _stop(settings: ClusterSettings, record: Record, say: Say) -> None:
    say(f"Stopping {record.name} (pid {record.pid})")
    stop(settings, record)
