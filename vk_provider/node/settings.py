"""What the operator decides about the node, checked before anything is asked of the cluster."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vk_provider import __version__
from vk_provider.common.errors import Invalid

DEFAULT_TAINT = "vk-provider.dev/virtual-node=:NoSchedule"
KUBELET_VERSION = f"v1.37.2+vk.{__version__}"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_QUALIFIED = re.compile(
    r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?"
)
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?)?")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
# k8s.io/kubelet/pkg/apis/well_known_labels.go: what NodeRestriction lets a node say of itself.
_OWN_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
    }
)
_OWN_LABEL_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint that the node is registered with."""

    key: str
    value: str
    effect: str

    def as_object(self) -> dict[str, str]:
        """Return it as the API has it."""
        found = {"key": self.key, "effect": self.effect}
        return found | {"value": self.value} if self.value else found


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The node as it is to be. Times are those of a kubelet (nodeStatusUpdateFrequency and kin)."""

    name: str
    addresses: tuple[str, ...] = ()
    """The node's InternalIPs; empty: the host's preferred one, as the agent says."""
    kubelet_port: int = 10250
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    """Taints at registration. A node may not change its own taints later."""
    provider_id: str = ""
    max_pods: int = 0
    """0: what the agent offers."""
    declared_features: tuple[str, ...] = ("ExtendWebSocketsToKubelet",)
    status_interval_s: float = 10
    report_interval_s: float = 300
    lease_duration_s: int = 40
    lease_interval_s: float = 10
    agent_grace_s: float = 30
    """How long the agent may be away (a restart, an upgrade) before the node is not Ready."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > 253:
            raise Invalid(
                f"{self.name!r} can't be a node's name: it must be a DNS name of lower-case "
                "letters, digits, '-' and '.'; give another with --node-name"
            )
        for address in self.addresses:
            _check_address(address)
        for key, value in self.labels.items():
            _check_label(key, value)


def parse_taint(text: str) -> Taint:
    """Read KEY=VALUE:EFFECT or KEY:EFFECT; raises Invalid."""
    body, _, effect = text.rpartition(":")
    key, _, value = body.partition("=")
    if effect not in _EFFECTS or not _QUALIFIED.fullmatch(key) or not _VALUE.fullmatch(value):
        raise Invalid(
            f"{text!r} is no taint; write KEY=VALUE:EFFECT with one of {', '.join(_EFFECTS)}, "
            f"such as {DEFAULT_TAINT}"
        )
    return Taint(key, value, effect)


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Read KEY=VALUE items; raises Invalid."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise Invalid(f"{text!r} is no label; write KEY=VALUE")
        _check_label(key, value)
        found[key] = value
    return found


def _check_label(key: str, value: str) -> None:
    if not _QUALIFIED.fullmatch(key) or not _VALUE.fullmatch(value):
        raise Invalid(f"'{key}={value}' is no valid label")
    domain = key.partition("/")[0] if "/" in key else ""
    reserved = domain.endswith(("kubernetes.io", "k8s.io"))
    allowed = any(domain == d or domain.endswith(f".{d}") for d in _OWN_LABEL_DOMAINS)
    if reserved and key not in _OWN_LABELS and not allowed:
        raise Invalid(
            f"A node may not give itself the label {key} (NodeRestriction); use a domain of your "
            f"own or {' or '.join(_OWN_LABEL_DOMAINS)}, or have an administrator label the node"
        )


def _check_address(text: str) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as exc:
        raise Invalid(f"The node address {text!r} is no IP address") from exc
    # kubelet validateNodeIP; the API server itself refuses to reach nodes at such addresses.
    if (
        address.is_loopback
        or address.is_multicast
        or address.is_link_local
        or address.is_unspecified
    ):
        raise Invalid(
            f"The node address {text} is loopback, link-local, multicast or unspecified; the "
            "cluster could not reach the node there. Give another with --node-ip"
        )
