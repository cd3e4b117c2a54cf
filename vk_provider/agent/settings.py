"""What an operator may decide about an agent; the command line fills it in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True)
class AgentSettings:
    """Places and limits of one agent. Every path is made where it is missing."""

    state_dir: Path = Path("/var/lib/vk-provider/agent")
    run_dir: Path = Path("/run/vk-provider/agent")
    """On a tmpfs: sockets."""
    log_dir: Path = Path("/var/log/pods")
    socket: Path | None = None
    """None: `agent.sock` in `run_dir`."""
    guest_image: Path | None = None
    """A folder of `hack/guest-image`; None: the newest below `guest_image_cache`."""
    guest_image_cache: Path = Path("/var/cache/vk-provider/guest")
    cni_conf_dir: Path = Path("/etc/cni/net.d")
    cni_bin_dirs: tuple[Path, ...] = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
    pod_cidrs: tuple[str, ...] = ()
    """For the built-in network, until the node tells those of the cluster."""
    registries_conf: Path | None = None
    log_max_bytes: int = 10 * MIB
    log_max_files: int = 5
    scratch_bytes: int = 20 * GIB
    """Size of a sandbox's scratch disk where the pod sets no limit; the file is sparse."""
    max_pods: int = 110
    cpu_overcommit: float = 1.0
    memory_overcommit: float = 1.0
    uid_base: int = 2_000_000
    """The first of the users that QEMU processes run as; one a VM, `uid_count` of them."""
    uid_count: int = 10_000
    templates: bool = True
    spare_vms: int = 20
    """How many VMs are kept ready of the shapes that were wanted last; none without templates."""
    usage_retention_s: int = 30 * 24 * 3600
    """How long the usage record of a removed sandbox is kept."""

    @property
    def socket_path(self) -> Path:
        return self.socket or self.run_dir / "agent.sock"

    @property
    def database(self) -> Path:
        return self.state_dir / "agent.db"

    @property
    def images_dir(self) -> Path:
        return self.state_dir / "images"

    def machine_state_dir(self, machine_id: str) -> Path:
        return self.state_dir / "sandboxes" / machine_id

    def machine_run_dir(self, machine_id: str) -> Path:
        return self.run_dir / "sandboxes" / machine_id
