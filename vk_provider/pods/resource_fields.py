"""`resourceFieldRef` of the downward API (pkg/api/v1/resource, kubelet_resources.go)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from vk_provider.common.errors import Invalid
from vk_provider.common.quantity import parse_quantity
from vk_provider.pods.podspec import Container, Pod, app_containers, init_containers

_RESOURCES = ("cpu", "memory", "ephemeral-storage")


def resource_field(
    pod: Pod,
    reference: Mapping[str, Any],
    allocatable: Mapping[str, str],
    container: Container | None = None,
) -> str:
    """Return the value in units of the divisor, rounded up.

    `container` is whose variable it is; a volume names the container in the reference. A limit
    that is not set is the pod's own, else the node's allocatable. Raises Invalid for a container
    or a resource that is not there.
    """
    name = reference.get("containerName") or ""
    target = _find(pod, name) if name or container is None else container
    kind, _, resource = str(reference.get("resource", "")).partition(".")
    known = resource in _RESOURCES or resource.startswith("hugepages-")
    if kind not in ("limits", "requests") or not known:
        raise Invalid(f"unsupported container resource : {reference.get('resource')}")
    values = (target.get("resources") or {}).get(kind) or {}
    value = parse_quantity(values.get(resource, 0))
    # Init containers that are named from elsewhere keep 0: the kubelet fills in app
    # containers and the container whose variable it is, no others.
    defaulted = target is container or target in app_containers(pod)
    if kind == "limits" and value == 0 and resource in _RESOURCES and defaulted:
        value = _default_limit(pod, resource, allocatable)
    divisor = parse_quantity(reference.get("divisor") or 0) or Fraction(1)
    unit = Fraction(1, 1000) if resource == "cpu" else Fraction(1)
    return str(math.ceil(Fraction(math.ceil(value / unit), math.ceil(divisor / unit))))


def _default_limit(pod: Pod, resource: str, allocatable: Mapping[str, str]) -> Fraction:
    own = (pod["spec"].get("resources") or {}).get("limits") or {}
    limit = parse_quantity(own.get(resource, 0)) if resource in ("cpu", "memory") else Fraction(0)
    return limit or parse_quantity(allocatable.get(resource, 0))


def _find(pod: Pod, name: str) -> Container:
    for container in [*app_containers(pod), *init_containers(pod)]:
        if container["name"] == name:
            return container
    raise Invalid(f"container {name} not found")
