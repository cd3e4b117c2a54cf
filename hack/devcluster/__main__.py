"""hack/up and hack/down."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import click

from hack.devcluster import cluster, joined, leftovers
from hack.devcluster.demo import NAME, Kubectl, run
from hack.devcluster.processes import running, spawn
from hack.devcluster.settings import ROOT, ClusterSettings, default_settings


def say(text: str) -> None:
    click.secho("==> ", bold=True, nl=False, err=True)
    click.echo(text, err=True)


@click.group()
def main() -> None:
    """The local cluster of hack/up and hack/down."""


@main.command()
def up() -> None:
    """Bring up a cluster with a virtual node and run two pods on it.

    With KUBECONFIG set (an administrator's), the node joins that cluster; else a local control
    plane is built from pinned Go modules (about eight minutes the first time) and started.
    Nothing that is there already is done again.
    """
    started = time.monotonic()
    settings = default_settings()
    given = os.environ.get("KUBECONFIG", "")
    builds = _build(settings)
    if given:
        settings, kubectl = cluster.join(settings, builds, _one_file(given), say)
        _show(kubectl, settings, started)
        return
    joined.check_one_cluster(settings, None)
    kubectl = cluster.start_control_plane(settings, builds, say)
    cluster.start_registry(settings, builds, say)
    if running(settings, "vk-provider") is None:
        say("Starting the virtual node and its agent (vk-provider run)")
    command = [*cluster.agent_command(settings, builds), *cluster.node_command(settings)]
    spawn(settings, "vk-provider", ["vk-provider", "run", *command])
    cluster.wait_node_ready(settings, builds, kubectl, ["vk-provider"])
    _show(kubectl, settings, started)


def _one_file(kubeconfig: str) -> Path:
    path = Path(kubeconfig).absolute()
    if not path.is_file():
        raise SystemExit(f"KUBECONFIG must name one kubeconfig file, which {kubeconfig} is not")
    return path


def _show(kubectl: Kubectl, settings: ClusterSettings, started: float) -> None:
    say(f"Node {settings.node_name} is Ready; running a Deployment of two pods")
    lines = run(kubectl, settings, f"{settings.registry}/test/busybox:1")
    say(
        f"Both pods run, each in a microVM of its own (this host's kernel is {os.uname().release}):"
    )
    for line in lines:
        click.echo(f"    {line}")
    say(f"Done in {time.monotonic() - started:.0f} s. Try next:")
    command = " ".join(kubectl.command)
    click.echo(f"    alias k='{command}'")
    for example in (
        "k get pods -o wide",
        f"k logs deployment/{NAME}",
        f"k exec -it deployment/{NAME} -- sh",
        f"k describe node {settings.node_name}",
        f"k scale deployment/{NAME} --replicas=5",
    ):
        click.echo(f"    {example}")
    click.echo("    ./hack/down")


def _build(settings: ClusterSettings) -> cluster.Builds:
    """Build side by side what is not cached, telling every half minute that it goes on."""
    commands = {
        "the control plane": [str(ROOT / "hack" / "control-plane" / "build")],
        "the guest image": [str(ROOT / "hack" / "guest-image")],
        "the test images": [str(ROOT / "hack" / "test-images"), "build"],
    }
    pending = set(commands)
    done = threading.Event()

    def build(what: str) -> Path:
        finished = subprocess.run(commands[what], stdout=subprocess.PIPE, text=True, check=False)
        if finished.returncode != 0:
            raise SystemExit(f"building {what} failed; its words are above")
        pending.discard(what)
        return Path(finished.stdout.strip().splitlines()[-1])

    def remind() -> None:
        start = time.monotonic()
        while not done.wait(30):
            say(f"{time.monotonic() - start:.0f} s: still building {' and '.join(sorted(pending))}")

    threading.Thread(target=remind, daemon=True).start()
    # dpkg's lock admits one installer at a time, so the small builds take turns.
    with ThreadPoolExecutor(2) as pool:
        control_plane = pool.submit(build, "the control plane")
        small: Future[list[Path]] = pool.submit(
            lambda: [build("the guest image"), build("the test images")]
        )
        guest_image, test_images = small.result()
        built = cluster.Builds(control_plane.result(), guest_image, test_images)
    done.set()
    return built


@main.command()
def down() -> None:
    """End what hack/up started, and list what was looked for and what is left."""
    settings = joined.recall(default_settings())
    if settings.directory.exists():
        cluster.take_down(settings, say)
    left = 0
    for finding in leftovers.look(settings):
        mark = "none left" if not finding.found else f"LEFT: {', '.join(finding.found)}"
        click.echo(f"    {finding.what:<20} {mark:<12} (looked for {finding.where})")
        left += len(finding.found)
    if left:
        raise SystemExit(f"{left} things are left; they are listed above")
    say("Nothing is left. Builds stay in the cache; ./hack/up is quick the next time.")


if __name__ == "__main__":
    sys.exit(main())
