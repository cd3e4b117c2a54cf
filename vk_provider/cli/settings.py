"""What `vk-provider node` is told, in one place and checked."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vk_provider.common.errors import Invalid
from vk_provider.node.settings import NodeSettings, parse_labels, parse_taint
from vk_provider.pods.settings import PodSettings


@dataclass(frozen=True, slots=True)
class Access:
    """How the node reaches its cluster; just one of the ways is set, none means in-cluster."""

    kubeconfig: Path | None = None
    bootstrap_kubeconfig: Path | None = None
    server: str = ""
    ca: Path | None = None
    bootstrap_token_file: Path | None = None


@dataclass(frozen=True, slots=True)
class NodeProcessSettings:
    """Everything that the node process needs to know before it starts."""

    node: NodeSettings
    pods: PodSettings
    access: Access
    state_dir: Path
    agent_socket: Path
    listen_address: str
    healthz_port: int
    client_ca_file: Path | None

    @property
    def pki_dir(self) -> Path:
        """Where certificates and their keys are."""
        return self.state_dir / "pki"


def read_node_settings(options: Mapping[str, Any]) -> NodeProcessSettings:
    """Make settings of the command's options; raises Invalid with what to do about it."""
    name = options["node_name"] or os.uname().nodename.lower()
    taints = () if options["no_taint"] else tuple(parse_taint(t) for t in options["taint"])
    for address in (options["listen_address"], *options["cluster_dns"]):
        _check_ip(address)
    return NodeProcessSettings(
        node=NodeSettings(
            name=name,
            addresses=tuple(options["node_ip"]),
            kubelet_port=options["port"],
            labels=parse_labels(options["node_label"]),
            taints=taints,
            provider_id=options["provider_id"],
            max_pods=options["max_pods"],
        ),
        pods=PodSettings(
            node_name=name,
            cluster_dns=tuple(options["cluster_dns"]),
            cluster_domain=options["cluster_domain"],
            allowed_unsafe_sysctls=tuple(options["allowed_unsafe_sysctl"]),
        ),
        access=_access(options),
        state_dir=options["state_dir"],
        agent_socket=options["agent_socket"],
        listen_address=options["listen_address"],
        healthz_port=options["healthz_port"],
        client_ca_file=options["client_ca_file"],
    )


def _access(options: Mapping[str, Any]) -> Access:
    access = Access(
        **{
            name: options[name]
            for name in (
                "kubeconfig",
                "bootstrap_kubeconfig",
                "server",
                "ca",
                "bootstrap_token_file",
            )
        }
    )
    token = (access.server, access.ca, access.bootstrap_token_file)
    ways = [bool(access.kubeconfig), bool(access.bootstrap_kubeconfig), any(token)]
    if sum(ways) > 1:
        raise Invalid(
            "Give one way to the cluster: --kubeconfig, or --bootstrap-kubeconfig, or --server "
            "with --ca and --bootstrap-token-file"
        )
    if any(token) and not all(token):
        raise Invalid("--server, --ca and --bootstrap-token-file are needed together")
    if access.server and urlsplit(access.server).scheme != "https":
        raise Invalid(f"--server must be an https URL, which {access.server!r} is not")
    if not any(ways) and not os.environ.get("KUBERNETES_SERVICE_HOST"):
        raise Invalid(
            "No way to the cluster was given; use --bootstrap-kubeconfig (a token that becomes a "
            "certificate), or --kubeconfig. See vk-provider node --help"
        )
    return access


def _check_ip(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as exc:
        raise Invalid(f"{text!r} is no IP address") from exc
