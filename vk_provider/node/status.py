"""The Node's content from what the agent says of its host, and the patch that brings it about."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.quantity import parse_quantity
from vk_provider.node.conditions import Condition, same_conditions
from vk_provider.node.settings import KUBELET_VERSION, NodeSettings

Node = dict[str, Any]
_MAX_IMAGES = 50  # kubelet nodeStatusMaxImages
_MAX_NAMES = 5  # kubelet maxNamesPerImageInNodeStatus
_NODE_INFO = {
    "kubeletVersion": KUBELET_VERSION,
    "kubeProxyVersion": "",
    "operatingSystem": "linux",
}
_OWN_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage", "pods"})


def node_addresses(settings: NodeSettings, host: pb.HostInfo | None) -> tuple[str, ...]:
    """Return the node's IP addresses: the operator's, else the host's preferred one."""
    if settings.addresses:
        return settings.addresses
    usable = (a for a in host.addresses if _usable(a)) if host is not None else iter(())
    first = next(usable, None)
    return (first,) if first is not None else ()


def make_labels(settings: NodeSettings, host: pb.HostInfo | None) -> dict[str, str]:
    """Return the labels that the node gives itself."""
    architecture = host.architecture if host is not None else "amd64"
    labels = {
        "kubernetes.io/hostname": settings.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": architecture,
        "node.kubernetes.io/instance-type": "vk-provider-microvm",
        "type": "virtual-kubelet",  # what node selectors for virtual nodes look for
    }
    if host is not None and host.accelerator:
        labels["vk-provider.dev/accelerator"] = host.accelerator
    return {**labels, **settings.labels}


def make_node(
    settings: NodeSettings, host: pb.HostInfo | None, conditions: list[Condition]
) -> Node:
    """Return the Node as it is registered."""
    spec: dict[str, Any] = {"taints": [t.as_object() for t in settings.taints]}
    if settings.provider_id:
        spec["providerID"] = settings.provider_id
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": settings.name,
            "labels": make_labels(settings, host),
            # Volumes are attached by no kubelet here, so the controller is told to do it.
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": spec,
        "status": {**make_status(settings, host, []), "conditions": conditions},
    }


def make_status(
    settings: NodeSettings, host: pb.HostInfo | None, images: Iterable[pb.Image]
) -> dict[str, Any]:
    """Return the status but for conditions; without a host, only what does not need one."""
    addresses = [{"type": "InternalIP", "address": a} for a in node_addresses(settings, host)]
    status: dict[str, Any] = {
        "addresses": [*addresses, {"type": "Hostname", "address": settings.name}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.kubelet_port}},
        "declaredFeatures": sorted(set(settings.declared_features)),
        "runtimeHandlers": [
            {"name": "", "features": {"recursiveReadOnlyMounts": True, "userNamespaces": False}}
        ],
        "features": {"supplementalGroupsPolicy": True},
        "nodeInfo": _NODE_INFO if host is None else _node_info(host),
    }
    if host is None:
        return status
    resources = _resources(settings, host)
    return status | {
        "capacity": resources,
        "allocatable": dict(resources),
        "images": _images(images),
    }


def make_patch(
    current: Node, labels: Mapping[str, str], status: dict[str, Any], conditions: list[Condition]
) -> tuple[dict[str, Any], bool]:
    """Return the strategic merge patch of the status subresource, and whether it changes anything.

    Resources, conditions, labels and annotations that others wrote stay. As a kubelet, the
    allocatable amount of an extended resource follows its capacity.
    """
    there = current.get("status") or {}
    wanted = dict(status)
    for section in ("capacity", "allocatable"):
        if section in wanted:
            wanted[section] = {**wanted[section]}
    if "allocatable" in wanted:
        wanted["allocatable"] |= _extended_allocatable(there)
    changed: dict[str, Any] = {}
    for name, value in wanted.items():
        if name in {"capacity", "allocatable"}:
            held = there.get(name) or {}
            differing = {k: v for k, v in value.items() if not _same_amount(held.get(k), v)}
            # None says "remove it"; what is not there needs no removing.
            differing = {k: v for k, v in differing.items() if v is not None or k in held}
            if differing:
                changed[name] = differing
        elif name == "nodeInfo":
            held = there.get(name) or {}
            if differing := {k: v for k, v in value.items() if held.get(k) != v}:
                changed[name] = differing
        elif there.get(name) != value and (value or there.get(name)):
            changed[name] = value
    if "addresses" in changed:
        # Addresses merge by type, and one type may come twice: replace the list as a whole.
        changed["addresses"] = [*changed["addresses"], {"$patch": "replace"}]
    is_change = bool(changed) or not same_conditions(conditions, there.get("conditions") or ())
    patch: dict[str, Any] = {"status": {**changed, "conditions": conditions}}
    held_labels = (current.get("metadata") or {}).get("labels") or {}
    if missing := {k: v for k, v in labels.items() if held_labels.get(k) != v}:
        patch["metadata"] = {"labels": missing}
        is_change = True
    return patch, is_change


def _same_amount(held: str | None, wanted: str | None) -> bool:
    """Compare quantities by value: the server writes 8Gi for what we called 8388608Ki."""
    if held is None or wanted is None:
        return held == wanted
    return parse_quantity(held) == parse_quantity(wanted)


def _extended_allocatable(there: Mapping[str, Any]) -> dict[str, str | None]:
    capacity = there.get("capacity") or {}
    found: dict[str, str | None] = {k: v for k, v in capacity.items() if _is_extended(k)}
    for name in there.get("allocatable") or {}:
        if _is_extended(name) and name not in capacity:
            found[name] = None
    return found


def _is_extended(name: str) -> bool:
    return name not in _OWN_RESOURCES and not name.startswith(("hugepages-", "attachable-volumes-"))


def _resources(settings: NodeSettings, host: pb.HostInfo) -> dict[str, str]:
    whole, rest = divmod(host.cpu_milli, 1000)
    pods = settings.max_pods or host.max_pods
    return {
        "cpu": f"{host.cpu_milli}m" if rest else str(whole),
        "memory": f"{host.memory_bytes // 1024}Ki",
        "ephemeral-storage": f"{host.ephemeral_storage_bytes // 1024}Ki",
        "pods": str(pods),
    }


def _node_info(host: pb.HostInfo) -> dict[str, str]:
    return _NODE_INFO | {
        "machineID": host.machine_id,
        "systemUUID": host.system_uuid,
        "bootID": host.boot_id,
        "kernelVersion": host.kernel_version,
        "osImage": host.os_image,
        # The scheme is that of containers' ids in pod statuses.
        "containerRuntimeVersion": f"vk://{host.agent_version}",
        "architecture": host.architecture,
    }


def _images(images: Iterable[pb.Image]) -> list[dict[str, Any]]:
    largest = sorted(images, key=lambda i: (-i.size_bytes, i.image_ref))[:_MAX_IMAGES]
    return [
        {
            "names": [*i.repo_digests, *i.repo_tags][:_MAX_NAMES] or [i.image_ref],
            "sizeBytes": i.size_bytes,
        }
        for i in largest
    ]


def _usable(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )
