"""Whether a node is one that a pod asks for (component-helpers/scheduling/corev1/nodeaffinity)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vk_provider.pods.podspec import Pod


def matches_node(pod: Pod, node_name: str, labels: Mapping[str, str]) -> bool:
    """Say whether nodeSelector and the required node affinity admit the node."""
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    fields = {"metadata.name": node_name}
    return any(
        _matches_term(term, labels, fields) for term in required.get("nodeSelectorTerms") or ()
    )


def _matches_term(
    term: Mapping[str, Any], labels: Mapping[str, str], fields: Mapping[str, str]
) -> bool:
    expressions = term.get("matchExpressions") or ()
    of_fields = term.get("matchFields") or ()
    if not expressions and not of_fields:
        return False  # an empty term matches nothing
    return all(_matches(one, labels) for one in expressions) and all(
        _matches(one, fields) for one in of_fields
    )


def _matches(requirement: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    value = values.get(requirement["key"])
    wanted: list[str] = list(requirement.get("values") or ())
    match requirement["operator"]:
        case "In":
            return value is not None and value in wanted
        case "NotIn":
            return value is None or value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            try:
                number, bound = int(value or ""), int(wanted[0])
            except (ValueError, IndexError):
                return False
            return number > bound if operator == "Gt" else number < bound
    return False


def tolerates(pod: Pod, taint: Mapping[str, str]) -> bool:
    """Say whether one of the pod's tolerations covers a taint (core/v1 ToleratesTaint)."""
    return any(_covers(toleration, taint) for toleration in pod["spec"].get("tolerations") or ())


def _covers(toleration: Mapping[str, Any], taint: Mapping[str, str]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    key = toleration.get("key") or ""
    if key and key != taint["key"]:
        return False
    value, own = taint.get("value") or "", toleration.get("value") or ""
    match toleration.get("operator") or "Equal":
        case "Exists":
            return True
        case "Equal":
            return bool(key) and own == value
        case "Gt" | "Lt" as operator:
            try:
                number, bound = int(value), int(own)
            except ValueError:
                return False
            return number > bound if operator == "Gt" else number < bound
    return False
