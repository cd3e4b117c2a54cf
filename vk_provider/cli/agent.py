"""`vk-provider agent`: the part that runs microVMs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vk_provider.cli.options import agent_socket, log_level, option

_DIRECTORY = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)
_STATE = Path("/var/lib/vk-provider/agent")
_RUN = Path("/run/vk-provider/agent")


@click.command()
@option(
    "--agent-state-dir",
    type=_DIRECTORY,
    default=_STATE,
    metavar="DIR",
    help="Records, images and the pods' disks. Holds no secrets.",
)
@option(
    "--agent-run-dir",
    type=_DIRECTORY,
    default=_RUN,
    metavar="DIR",
    help="Sockets, and what is secret: on a tmpfs.",
)
@option(
    "--log-dir",
    type=_DIRECTORY,
    default=Path("/var/log/pods"),
    metavar="DIR",
    help="Where containers' logs are kept, one folder a pod.",
)
@agent_socket
@option(
    "--guest-image",
    type=_DIRECTORY,
    metavar="DIR",
    help="Kernel and initramfs of the microVMs, a folder that hack/guest-image printed. "
    "[default: the newest in /var/cache/vk-provider/guest]",
)
@option(
    "--registries-conf",
    type=_FILE,
    metavar="FILE",
    help="Mirrors and insecure registries, as containers-registries.conf(5). [default: the host's]",
)
@option(
    "--cni-conf-dir",
    type=_DIRECTORY,
    default=Path("/etc/cni/net.d"),
    metavar="DIR",
    help="Network configuration; the first file by name is used. Where there is none, pods get a "
    "built-in bridge.",
)
@option(
    "--cni-bin-dir",
    type=_DIRECTORY,
    multiple=True,
    default=(Path("/opt/cni/bin"), Path("/usr/lib/cni")),
    metavar="DIR",
    help="Where CNI plugins are; may be given several times.",
)
@option(
    "--pod-cidr",
    multiple=True,
    metavar="CIDR",
    help="Addresses for the built-in network, until the node tells those of the cluster.",
)
@option(
    "--container-log-max-size",
    default="10Mi",
    metavar="QUANTITY",
    help="A log of that size is rotated; 0 for never.",
)
@option(
    "--container-log-max-files",
    type=click.IntRange(2),
    default=5,
    help="How many files of one container's log are kept.",
)
@option(
    "--scratch-size",
    default="20Gi",
    metavar="QUANTITY",
    help="The disk of a pod that sets no ephemeral-storage limit; takes only what is written.",
)
@option(
    "--max-vms",
    type=click.IntRange(1),
    default=110,
    help="How many microVMs may run at once: the node's capacity of pods.",
)
@option(
    "--cpu-overcommit",
    type=click.FloatRange(0.1, 100),
    default=1.0,
    help="How many times the host's CPUs are offered to pods.",
)
@option(
    "--memory-overcommit",
    type=click.FloatRange(0.1, 100),
    default=1.0,
    help="How many times the host's memory is offered to pods.",
)
@option(
    "--vm-uid-base",
    type=click.IntRange(1000),
    default=2_000_000,
    help="The first of the 10000 user ids that microVMs run as, one each; nobody else may have "
    "them.",
)
@option(
    "--templates/--no-templates",
    default=True,
    help="Start microVMs from a saved one where that is possible: a second or two faster.",
)
@option(
    "--spare-vms",
    type=click.IntRange(0, 64),
    default=20,
    help="How many microVMs are kept ready for pods to come, of the sizes that were wanted last. "
    "Each saves a pod about a second and costs some 70 MiB of the host's memory; none is made "
    "while less than a quarter of that is available.",
)
@option(
    "--remove-all",
    is_flag=True,
    default=False,
    help="Remove every sandbox with its VM, network, logs and disk, then end. Serves nothing.",
)
@log_level
def agent(log_level: str, **options: Any) -> None:
    """Run pods' microVMs on this host, for one node process.

    Needs root, QEMU, skopeo and the CNI plugins (vk-provider doctor looks for all of them). Holds
    no credentials of the cluster. May be stopped, upgraded and started again at any time: the
    microVMs go on, and the next agent takes them over, their logs at the right line.
    """
    from vk_provider.agent.agent import remove_everything, run_agent
    from vk_provider.agent.settings import AgentSettings
    from vk_provider.cli.processes import run_until_signal
    from vk_provider.common.logging import set_up
    from vk_provider.common.quantity import whole

    set_up(log_level)
    settings = AgentSettings(
        state_dir=options["agent_state_dir"],
        run_dir=options["agent_run_dir"],
        log_dir=options["log_dir"],
        socket=options["agent_socket"],
        guest_image=options["guest_image"],
        registries_conf=options["registries_conf"],
        cni_conf_dir=options["cni_conf_dir"],
        cni_bin_dirs=tuple(options["cni_bin_dir"]),
        pod_cidrs=tuple(options["pod_cidr"]),
        log_max_bytes=whole(options["container_log_max_size"]),
        log_max_files=options["container_log_max_files"],
        scratch_bytes=whole(options["scratch_size"]),
        max_pods=options["max_vms"],
        cpu_overcommit=options["cpu_overcommit"],
        memory_overcommit=options["memory_overcommit"],
        uid_base=options["vm_uid_base"],
        templates=options["templates"],
        spare_vms=options["spare_vms"],
    )
    if options["remove_all"]:
        run_until_signal(remove_everything(settings))
    else:
        run_until_signal(
            run_agent(settings, lambda: click.echo("vk-provider agent: ready", err=True))
        )
