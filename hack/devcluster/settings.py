"""Where a local cluster lives and which addresses it uses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("VK_CACHE_DIR", "/var/cache/vk-provider"))


@dataclass(frozen=True)
class ClusterSettings:
    """One local cluster. Two can run at once only in network namespaces of their own."""

    directory: Path
    """Everything that the cluster writes, but for pod logs and the agent's run directory."""
    run_directory: Path
    """On a tmpfs: sockets."""
    log_directory: Path = Path("/var/log/pods")
    node_name: str = "vk-node"
    api_address: str = "10.213.0.1"
    """On a bridge without ports: pods reach it, the network outside does not. The API server's
    own address must not be a loopback one, or the `kubernetes` Service has no endpoint."""
    api_link: str = "vkcp0"
    node_address: str = "10.213.0.1"
    """Where the API server finds the node. In a cluster that was joined: this host's own."""
    api_port: int = 6443
    service_cidr: str = "10.96.0.0/16"
    service_api_address: str = "10.96.0.1"
    pod_cidr: str = "10.244.0.0/16"
    registry_port: int = 5010
    own_control_plane: bool = True
    """False in a cluster that was joined: a link or kube-proxy on this host is not ours."""

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def records(self) -> Path:
        return self.directory / "processes"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.directory / "admin.kubeconfig"

    @property
    def api_url(self) -> str:
        return f"https://{self.api_address}:{self.api_port}"

    @property
    def registry(self) -> str:
        return f"127.0.0.1:{self.registry_port}"

    @property
    def agent_socket(self) -> Path:
        return self.run_directory / "agent" / "agent.sock"


def default_settings() -> ClusterSettings:
    """The cluster of hack/up; VK_UP_DIR moves its folder."""
    return ClusterSettings(
        directory=Path(os.environ.get("VK_UP_DIR", "/var/lib/vk-provider/up")),
        run_directory=Path("/run/vk-provider"),
    )
