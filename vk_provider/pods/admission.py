"""Whether a pod that was bound to this node can run here (kubelet lifecycle/predicate.go).

Pure: the caller turns a rejection into phase Failed and an event. A node refuses in words what it
can't honour; it never ignores it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from vk_provider.common.errors import Invalid
from vk_provider.common.quantity import parse_quantity
from vk_provider.pods.features import unsupported_fields
from vk_provider.pods.node_affinity import matches_node, tolerates
from vk_provider.pods.podspec import Pod, all_containers, pod_security, uid_of
from vk_provider.pods.resources import Resources, pod_requests
from vk_provider.pods.sandbox_config import port_mappings
from vk_provider.pods.settings import PodSettings
from vk_provider.pods.sysctls import forbidden

_NATIVE = ("cpu", "memory", "ephemeral-storage")
_ANY_IP = ("", "0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a pod is not admitted: `status.reason`, and the sentence for its message."""

    reason: str
    message: str

    @property
    def status_message(self) -> str:
        """The text for `status.message`."""
        return f"Pod was rejected: {self.message}"


def admit(
    pod: Pod,
    *,
    active_pods: Iterable[Pod],
    allocatable: Mapping[str, str],
    node: Mapping[str, Any],
    settings: PodSettings,
) -> Rejection | None:
    """Return why the pod can't run here, None where it can.

    `active_pods` are those admitted and not ended (the pod itself may be among them),
    `allocatable` the node's quantities, `node` its object (labels and taints are read).
    """
    others = [other for other in active_pods if uid_of(other) != uid_of(pod)]
    try:
        return (
            _features(pod)
            or _runtime_class(pod, settings)
            or _sysctls(pod, settings)
            or _operating_system(pod)
            or _resources(pod, others, allocatable)
            or _node(pod, others, node)
        )
    except Invalid as exc:
        return Rejection("UnexpectedAdmissionError", f"the pod's spec can't be read: {exc}")


def fit(
    pod: Pod, *, active_pods: Iterable[Pod], allocatable: Mapping[str, str]
) -> Rejection | None:
    """Return why the node has no room for what a running pod asks for, None where it has."""
    others = [other for other in active_pods if uid_of(other) != uid_of(pod)]
    try:
        return _resources(pod, others, allocatable)
    except Invalid as exc:
        return Rejection("UnexpectedAdmissionError", f"the pod's spec can't be read: {exc}")


def _features(pod: Pod) -> Rejection | None:
    found = list(unsupported_fields(pod))
    if found:
        message = "; ".join(map(str, found)) + _daemon_set_hint(pod)
        return Rejection(found[0].reason, message)
    for container in all_containers(pod):
        resources = container.get("resources") or {}
        for kind in ("limits", "requests"):
            for name, value in (resources.get(kind) or {}).items():
                if _is_device(name) and parse_quantity(value) > 0:
                    message = (
                        f"container {container['name']} asks for {name}, which is not supported on "
                        "this virtual node: a pod's VM has no huge pages and no device of the host"
                    )
                    return Rejection("PodFeatureUnsupported", message + _daemon_set_hint(pod))
    return None


def _is_device(resource: str) -> bool:
    if resource.startswith("hugepages-"):
        return True
    vendor, _, name = resource.rpartition("/")
    return vendor == "nvidia.com" or (bool(vendor) and name.partition(".")[0] == "gpu")


def _daemon_set_hint(pod: Pod) -> str:
    for owner in pod["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner.get("kind") == "DaemonSet":
            return (
                f". The DaemonSet {owner['name']} belongs on machines: keep it off virtual nodes "
                "by a required nodeAffinity with key type, operator NotIn and value "
                "virtual-kubelet in its pod template"
            )
    return ""


def _runtime_class(pod: Pod, settings: PodSettings) -> Rejection | None:
    name = pod["spec"].get("runtimeClassName") or ""
    if not name or name in settings.runtime_classes:
        return None
    known = ", ".join(settings.runtime_classes)
    return Rejection(
        "PodFeatureUnsupported",
        f'spec.runtimeClassName="{name}" is not supported on this virtual node: every pod here '
        f"runs in a microVM; leave it out, or use {known}",
    )


def _sysctls(pod: Pod, settings: PodSettings) -> Rejection | None:
    message = forbidden(pod_security(pod).get("sysctls") or (), settings.allowed_unsafe_sysctls)
    return Rejection("SysctlForbidden", message) if message else None


def _operating_system(pod: Pod) -> Rejection | None:
    labels = pod["metadata"].get("labels") or {}
    if labels.get("kubernetes.io/os", "linux") != "linux":
        return Rejection(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        )
    if ((pod["spec"].get("os") or {}).get("name") or "linux") != "linux":
        return Rejection(
            "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"
        )
    return None


def _resources(pod: Pod, others: Sequence[Pod], allocatable: Mapping[str, str]) -> Rejection | None:
    if "pods" in allocatable:
        room = parse_quantity(allocatable["pods"])
        if len(others) + 1 > room:
            return _insufficient("pods", Fraction(1), Fraction(len(others)), room)
    used: Resources = {}
    for other in others:
        for name, value in pod_requests(other).items():
            used[name] = used.get(name, Fraction(0)) + value
    for name, value in sorted(pod_requests(pod).items(), key=_native_first):
        # What the node does not offer by name is the cluster's own (scheduler extenders).
        if value <= 0 or (name not in _NATIVE and name not in allocatable):
            continue
        capacity = parse_quantity(allocatable.get(name, 0))
        taken = used.get(name, Fraction(0))
        if value > capacity - taken:
            return _insufficient(name, value, taken, capacity)
    return None


def _native_first(item: tuple[str, Fraction]) -> tuple[int, str]:
    name = item[0]
    return (_NATIVE.index(name) if name in _NATIVE else len(_NATIVE), name)


def _insufficient(name: str, requested: Fraction, used: Fraction, capacity: Fraction) -> Rejection:
    unit = 1000 if name == "cpu" else 1
    figures = [math.ceil(value * unit) for value in (requested, used, capacity)]
    return Rejection(
        f"OutOf{name}",
        f"Node didn't have enough resource: {name}, requested: {figures[0]}, "
        f"used: {figures[1]}, capacity: {figures[2]}",
    )


def _node(pod: Pod, others: Sequence[Pod], node: Mapping[str, Any]) -> Rejection | None:
    metadata = node.get("metadata") or {}
    name = metadata.get("name", "")
    if not matches_node(pod, name, metadata.get("labels") or {}):
        return _predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
    if name and (pod["spec"].get("nodeName") or name) != name:
        return _predicate("NodeName", "node(s) didn't match the requested node name")
    taken = [port for other in others for port in _host_ports(other)]
    if any(_collide(port, other) for port in _host_ports(pod) for other in taken):
        return _predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") == "NoExecute" and not tolerates(pod, taint):
            return _predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate")
    return None


def _predicate(name: str, description: str) -> Rejection:
    return Rejection(name, f"Predicate {name} failed: {description}")


def _host_ports(pod: Pod) -> list[tuple[str, int, str]]:
    return [(one.protocol, one.host_port, one.host_ip) for one in port_mappings(pod)]


def _collide(one: tuple[str, int, str], other: tuple[str, int, str]) -> bool:
    same_port = one[:2] == other[:2]
    return same_port and (one[2] == other[2] or one[2] in _ANY_IP or other[2] in _ANY_IP)
