"""`vk-provider node`: the kubelet's part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vk_provider.cli.options import DEFAULT_NODE_STATE, agent_socket, log_level, option

_FILE = click.Path(path_type=Path, dir_okay=False)
_TAINT = "vk-provider.dev/virtual-node=:NoSchedule"


@click.group(invoke_without_command=True)
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
@click.pass_context
def node(ctx: click.Context, /, log_level: str, **options: Any) -> None:
    """Be a node of a Kubernetes cluster: register, run the pods bound to it, answer as a kubelet.

    Needs an agent (vk-provider agent) on this host, which starts the microVMs. May be stopped,
    upgraded and started again at any time: pods go on, and their status is caught up with.

    \b
    Join a cluster made with kubeadm:
      kubeadm token create --print-join-command     # for the token and the CA's hash
      vk-provider node --bootstrap-kubeconfig bootstrap.kubeconfig

    To leave it for good: vk-provider node leave.
    """
    if ctx.invoked_subcommand is not None:
        _refuse_options(ctx)
        return
    from vk_provider.cli.node_process import run_node
    from vk_provider.cli.processes import only_one, run_until_signal
    from vk_provider.cli.settings import read_node_settings
    from vk_provider.common.logging import set_up

    set_up(log_level)
    settings = read_node_settings(options)
    with only_one(settings.pki_dir, "vk-provider node"):
        run_until_signal(run_node(settings))


def _refuse_options(ctx: click.Context) -> None:
    """Say where a subcommand's options belong, instead of passing over them."""
    given = click.core.ParameterSource.COMMANDLINE
    if any(ctx.get_parameter_source(name) is given for name in ctx.params):
        raise click.UsageError(
            f"Write the options after {ctx.invoked_subcommand}: "
            f"vk-provider node {ctx.invoked_subcommand} --node-name …"
        )


@node.command(params=list(node.params))
@option(
    "--admin-kubeconfig",
    type=_FILE,
    metavar="FILE",
    help="A kubeconfig that may delete nodes, for the Node object: its own credentials may not.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the pods to end.",
)
def leave(log_level: str, admin_kubeconfig: Path | None, timeout: float, **options: Any) -> None:
    """Leave the cluster for good: end the pods by their grace, and remove what is left.

    Takes the options that the node was started with; the credentials in its state folder do
    without others. Stop the node process first (this takes its place), and let the agent run:

    \b
      systemctl disable --now vk-provider-node
      vk-provider node leave --node-name vk-1 --admin-kubeconfig admin.kubeconfig
      systemctl disable --now vk-provider-agent
      vk-provider agent --remove-all

    \b
    In this order:
      1. cordon: no new pods come
      2. evict the pods, as disruption budgets allow, those of DaemonSets last, and wait
      3. delete Lease and Node; without rights to the Node, say what an administrator must do
      4. remove its certificates; the cluster can't be joined with them any more

    What fails can be repeated. Until step 3 `kubectl uncordon` and a start take all back.
    """
    import asyncio

    from vk_provider.cli.leaving import leave_cluster
    from vk_provider.cli.processes import only_one
    from vk_provider.cli.settings import read_node_settings
    from vk_provider.common.logging import set_up

    set_up(log_level)
    ways = ("kubeconfig", "bootstrap_kubeconfig", "server", "ca", "bootstrap_token_file")
    stored = options["state_dir"] / "pki" / "kubeconfig"
    if not any(options[way] for way in ways) and stored.exists():
        options["kubeconfig"] = stored
    settings = read_node_settings(options)
    with only_one(settings.pki_dir, "vk-provider node"):
        asyncio.run(leave_cluster(settings, admin_kubeconfig, timeout, click.echo))
