"""`vk-provider doctor`: what stands in the way on this host, and how to mend it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from vk_provider.cli.options import agent_socket, as_json, option

if TYPE_CHECKING:
    from vk_provider.cli.checks.model import Finding

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_MARKS = {"ok": ("ok  ", "green"), "doubtful": ("hmm ", "yellow"), "failed": ("FAIL", "red")}


@click.command()
@option("--kubeconfig", type=_FILE, metavar="FILE", help="Look at this cluster too, as its user.")
@option(
    "--bootstrap-kubeconfig",
    type=_FILE,
    metavar="FILE",
    help="Look at this cluster too, with the rights that joining needs.",
)
@option("--node-name", metavar="NAME", help="The Node's name. [default: this host's name]")
@option(
    "--agent-state-dir", type=_FOLDER, default=Path("/var/lib/vk-provider/agent"), metavar="DIR"
)
@option("--agent-run-dir", type=_FOLDER, default=Path("/run/vk-provider/agent"), metavar="DIR")
@option("--log-dir", type=_FOLDER, default=Path("/var/log/pods"), metavar="DIR")
@option("--guest-image", type=_FOLDER, metavar="DIR", help="The guest image to try KVM with.")
@option(
    "--cni-bin-dir",
    type=_FOLDER,
    multiple=True,
    default=(Path("/opt/cni/bin"), Path("/usr/lib/cni")),
    metavar="DIR",
)
@option("--listen-address", default="0.0.0.0", metavar="IP")
@option("--port", type=click.IntRange(1, 65535), default=10250)
@agent_socket
@as_json
@click.pass_context
def doctor(
    ctx: click.Context,
    kubeconfig: Path | None,
    bootstrap_kubeconfig: Path | None,
    node_name: str | None,
    agent_state_dir: Path,
    agent_run_dir: Path,
    log_dir: Path,
    guest_image: Path | None,
    cni_bin_dir: tuple[Path, ...],
    listen_address: str,
    port: int,
    agent_socket: Path,
    as_json: bool,
) -> None:
    """Examine this host (and a cluster), and say how to mend what is wrong.

    Changes nothing. KVM is judged by booting a guest, not by its device. Exit code 1 when
    something keeps pods from running.
    """
    from vk_provider.cli.checks import host
    from vk_provider.cli.checks.hypervisor import check_hypervisor
    from vk_provider.common.logging import set_up

    set_up("error")
    findings = [
        host.check_rights(),
        *host.check_tools(),
        host.check_plugins(cni_bin_dir),
        host.check_tun(),
        host.check_links(),
        host.check_forwarding(),
        host.check_cgroups(),
        host.check_disk("state folder", agent_state_dir),
        host.check_disk("log folder", log_dir, 1 << 30),
        host.check_run_dir(agent_run_dir),
        host.check_memory(),
        host.check_swap(),
        host.check_port("kubelet API's port", listen_address, port),
        *asyncio.run(check_hypervisor(agent_socket, guest_image)),
    ]
    name = node_name or os.uname().nodename.lower()
    for file, joining in ((kubeconfig, False), (bootstrap_kubeconfig, True)):
        if file is not None:
            findings += asyncio.run(_look_at_cluster(file, name, joining=joining))
    _tell(findings, as_json=as_json)
    ctx.exit(1 if any(f.verdict == "failed" for f in findings) else 0)


async def _look_at_cluster(file: Path, node_name: str, *, joining: bool) -> list[Finding]:
    from vk_provider.cli.checks.cluster import BOOTSTRAP_RIGHTS, check_cluster, node_rights
    from vk_provider.cli.checks.model import failed
    from vk_provider.common.clock import SystemClock
    from vk_provider.common.errors import VkError
    from vk_provider.kube.client import KubeClient

    clock, what = SystemClock(), "bootstrap-kubeconfig" if joining else "kubeconfig"
    try:
        client = await KubeClient.from_kubeconfig(
            file, user_agent="vk-provider/doctor", clock=clock
        )
    except VkError as exc:  # what was found out about the host is told all the same
        return [failed(what, str(exc), f"make {file} anew, or name another with --{what}")]
    rights = BOOTSTRAP_RIGHTS if joining else node_rights(node_name)
    try:
        return [finding async for finding in check_cluster(client, clock, rights)]
    finally:
        await client.close()


def _tell(findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        items = [
            {"what": f.what, "verdict": f.verdict, "found": f.found, "mend": f.mend}
            for f in findings
        ]
        click.echo(orjson.dumps(items, option=orjson.OPT_INDENT_2).decode())
        return
    width = max(len(f.what) for f in findings)
    for finding in findings:
        mark, colour = _MARKS[finding.verdict]
        click.secho(mark, fg=colour, nl=False)
        click.echo(f"  {finding.what.ljust(width)}  {finding.found}")
        if finding.mend:
            click.echo(f"      {' ' * width}  -> {finding.mend}")
