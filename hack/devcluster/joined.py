"""A cluster of somebody else's that our node joins: what is made there, and how it goes again.

Only the node's bootstrap needs the given kubeconfig; the node itself gets a token that it turns
into a certificate of its own, as `system:node:NAME`.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from hack.devcluster import bootstrap
from hack.devcluster.demo import NAME, Kubectl
from hack.devcluster.settings import ClusterSettings

_NEEDED = (
    ("create", "secrets", "--namespace=kube-system"),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
    ("update", "certificatesigningrequests.certificates.k8s.io", "--subresource=approval"),
    ("approve", "signers.certificates.k8s.io/kubernetes.io/kubelet-serving"),
    ("delete", "nodes"),
)


def check_one_cluster(settings: ClusterSettings, kubeconfig: Path | None) -> None:
    """Raise SystemExit when hack/up's node is in another cluster already; None: the local one."""
    if (there := _noted(settings)) is not None:
        here = f"the cluster of {there.kubeconfig}"
        same = there.kubeconfig == kubeconfig
    else:
        here = "the local cluster"
        same = kubeconfig is None or not settings.pki.exists()
    if not same:
        raise SystemExit(f"hack/up's node is in {here} already; ./hack/down takes it out of it")


def check_rights(kubectl: Kubectl) -> None:
    """Raise SystemExit with what the kubeconfig may not do, before anything is made."""
    missing = []
    for verb, what, *options in _NEEDED:
        command = [*kubectl.command, "auth", "can-i", verb, what, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        answer = done.stdout.split()
        if not answer or answer[0] not in ("yes", "no"):
            raise SystemExit(f"the cluster of KUBECONFIG does not answer: {done.stderr.strip()}")
        if answer[0] == "no":
            missing.append(f"{verb} {what}")
    if missing:
        raise SystemExit(
            "KUBECONFIG must be an administrator's, to let a node join; this one may not "
            + ", ".join(missing)
        )


def admit(settings: ClusterSettings, kubectl: Kubectl) -> None:
    """Make the bootstrap token and its rights; leave a note for `retire` first."""
    _note(settings).write_text(f"{kubectl.binary}\n{kubectl.kubeconfig}")
    kubectl.run("apply", "--server-side", "-f", "-", stdin=bootstrap.manifest(settings))


def cluster_entry(kubectl: Kubectl) -> dict[str, str]:
    """Return where the cluster is and by which authority it is known, with no credentials."""
    view = kubectl.json("config", "view", "--minify", "--flatten", "--raw")
    return dict(view["clusters"][0]["cluster"])


def own_address(server: str) -> str:
    """Return the address of this host from which it reaches the API server, for the way back."""
    url = urlsplit(server)
    address = _source_address(url.hostname or "", url.port or 443)
    # An API server on loopback runs in a container or behind a tunnel: not the way to this host.
    return _source_address("192.0.2.1", 443) if address.startswith("127.") else address


def _source_address(host: str, port: int) -> str:
    try:
        family, kind, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)  # of a datagram socket: sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise SystemExit(f"found no address of this host on the way to {host}: {error}") from error


def end_demo(settings: ClusterSettings, say: Callable[[str], None]) -> None:
    """Delete the Deployment while its node still runs, so that its pods end by their grace."""
    if (kubectl := _noted(settings)) is not None:
        say(f"Deleting deployment/{NAME} in the joined cluster")
        delete = ("delete", f"deployment/{NAME}", "--namespace=default", "--ignore-not-found")
        _try(kubectl, say, *delete, "--cascade=foreground", "--timeout=60s")


def retire(settings: ClusterSettings, say: Callable[[str], None]) -> None:
    """Remove the Node, the token and its rights; its process ended."""
    if (kubectl := _noted(settings)) is None:
        return
    say(f"Removing node {settings.node_name} and its token from the joined cluster")
    _try(kubectl, say, "delete", f"node/{settings.node_name}", "--ignore-not-found")
    manifest = bootstrap.manifest(settings)
    _try(kubectl, say, "delete", "-f", "-", "--ignore-not-found", stdin=manifest)


def recall(settings: ClusterSettings) -> ClusterSettings:
    """Return the settings as they are if a cluster was joined with them."""
    return replace(settings, own_control_plane=False) if _note(settings).exists() else settings


def _note(settings: ClusterSettings) -> Path:
    return settings.directory / "joined"


def _noted(settings: ClusterSettings) -> Kubectl | None:
    if not _note(settings).exists():
        return None
    return Kubectl(*map(Path, _note(settings).read_text().splitlines()))


def _try(kubectl: Kubectl, say: Callable[[str], None], *arguments: str, stdin: str = "") -> None:
    """Do it if it can be done: this host is cleaned also when the cluster is gone."""
    try:
        kubectl.run(*arguments, "--request-timeout=60s", stdin=stdin, timeout_s=90)
    except (SystemExit, subprocess.TimeoutExpired) as error:
        say(f"The joined cluster still has it: {error}")
