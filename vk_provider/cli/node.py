"""`vk-provider node`: the kubelet's part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vk_provider.cli.options import DEFAULT_NODE_STATE, agent_socket, log_level, option

_FILE = click.Path(path_type=Path, dir_okay=False)
_TAINT = "vk-provider.dev/virtual-node=:NoSchedule"


@click.command()
@option("--node-name", metavar="NAME", help="The Node's name. [default: this host's name]")
@option(
    "--bootstrap-kubeconfig",
    type=_FILE,
    metavar="FILE",
    help="A kubeconfig with a bootstrap token: the node asks for a certificate with it, keeps that "
    "in the state folder and renews it. The usual way to join.",
)
@option(
    "--kubeconfig",
    type=_FILE,
    metavar="FILE",
    help="A kubeconfig with the node's own credentials (system:node:NAME). Read again when it "
    "changes.",
)
@option("--server", default="", metavar="URL", help="The API server, for --bootstrap-token-file.")
@option("--ca", type=_FILE, metavar="FILE", help="Its authority, for --bootstrap-token-file.")
@option(
    "--bootstrap-token-file",
    type=_FILE,
    metavar="FILE",
    help="A file with a bootstrap token, instead of --bootstrap-kubeconfig.",
)
@option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_NODE_STATE,
    metavar="DIR",
    help="Where the node keeps its certificates, and nothing else.",
)
@agent_socket
@option(
    "--node-ip",
    multiple=True,
    metavar="IP",
    help="The node's address, at which the API server reaches it; twice for two families. "
    "[default: the host's own]",
)
@option(
    "--listen-address",
    default="0.0.0.0",
    metavar="IP",
    help="Where the kubelet's HTTPS API (logs, exec, metrics) listens.",
)
@option("--port", type=click.IntRange(1, 65535), default=10250, help="Its port.")
@option(
    "--healthz-port",
    type=click.IntRange(0, 65535),
    default=10248,
    help="Port of plain /healthz on 127.0.0.1; 0 for none.",
)
@option(
    "--client-ca-file",
    type=_FILE,
    metavar="FILE",
    help="Authority of the API server's client certificate. [default: what the cluster "
    "publishes, else the kubeconfig's authority]",
)
@option(
    "--taint",
    multiple=True,
    default=(_TAINT,),
    metavar="KEY=VALUE:EFFECT",
    help="Taint of the node when it is registered; may be given several times.",
)
@option("--no-taint", is_flag=True, default=False, help="Register without a taint.")
@option(
    "--node-label",
    multiple=True,
    metavar="KEY=VALUE",
    help="A further label of the node; may be given several times.",
)
@option("--provider-id", default="", metavar="ID", help="spec.providerID, where it is needed.")
@option(
    "--max-pods",
    type=click.IntRange(0),
    default=0,
    help="How many pods the node takes; 0 for what the agent's host holds.",
)
@option(
    "--cluster-dns",
    multiple=True,
    metavar="IP",
    help="The cluster's DNS. [default: the Service kube-system/kube-dns]",
)
@option("--cluster-domain", default="cluster.local", metavar="NAME", help="The cluster's domain.")
@option(
    "--allowed-unsafe-sysctl",
    multiple=True,
    metavar="NAME",
    help="A sysctl, or a prefix ending in *, that pods may set besides the safe ones.",
)
@log_level
def node(log_level: str, **options: Any) -> None:
    """Be a node of a Kubernetes cluster: register, run the pods bound to it, answer as a kubelet.

    Needs an agent (vk-provider agent) on this host, which starts the microVMs. May be stopped,
    upgraded and started again at any time: pods go on, and their status is caught up with.

    \b
    Join a cluster made with kubeadm:
      kubeadm token create --print-join-command     # for the token and the CA's hash
      vk-provider node --bootstrap-kubeconfig bootstrap.kubeconfig
    """
    from vk_provider.cli.node_process import run_node
    from vk_provider.cli.processes import only_one, run_until_signal
    from vk_provider.cli.settings import read_node_settings
    from vk_provider.common.logging import set_up

    set_up(log_level)
    settings = read_node_settings(options)
    with only_one(settings.pki_dir, "vk-provider node"):
        run_until_signal(run_node(settings))
