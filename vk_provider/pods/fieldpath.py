"""Fields of the downward API (pkg/fieldpath, ConvertDownwardAPIFieldLabel)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vk_provider.common.errors import Invalid
from vk_provider.pods.podspec import Pod, go_quote

_SUBSCRIPT = re.compile(r"(.+?)\['(.*)'\]", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PREFIX_LENGTH = 253


def split_subscript(path: str) -> tuple[str, str] | None:
    """Split `metadata.labels['key']` into its path and key; None for a path without one."""
    match = _SUBSCRIPT.fullmatch(path)
    return (match.group(1), match.group(2)) if match else None


def format_map(values: Mapping[str, str]) -> str:
    """Render labels or annotations as `key="value"` lines, sorted by key."""
    return "\n".join(f"{key}={go_quote(values[key])}" for key in sorted(values))


def metadata_field(pod: Pod, path: str) -> str:
    """Return a field of the pod's metadata as text; raises Invalid for any other path."""
    metadata = pod["metadata"]
    subscripted = split_subscript(path)
    if subscripted is not None:
        field, key = subscripted
        if field not in ("metadata.labels", "metadata.annotations"):
            raise Invalid(f'fieldPath "{path}" does not support subscript')
        kind = field.removeprefix("metadata.")
        if not _is_qualified_name(key.lower() if kind == "annotations" else key):
            raise Invalid(
                f"invalid key subscript in {path}: '{key}' is not a name of at most 63 letters, "
                "digits, '-', '_' and '.', with an optional DNS prefix and '/'"
            )
        return str((metadata.get(kind) or {}).get(key, ""))
    match path:
        case "metadata.labels" | "metadata.annotations":
            return format_map(metadata.get(path.removeprefix("metadata.")) or {})
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(metadata.get(path.removeprefix("metadata."), ""))
    raise Invalid(f"unsupported fieldPath: {path}")


def environment_field(
    pod: Pod,
    path: str,
    *,
    node_name: str,
    host_ips: Sequence[str],
    pod_ips: Sequence[str],
    api_version: str = "v1",
) -> str:
    """Return what a fieldRef of an environment variable stands for.

    Raises Invalid for a field that the downward API does not have.
    """
    if api_version not in ("", "v1"):
        raise Invalid(f"unsupported pod version: {api_version}")
    spec = pod["spec"]
    match path:
        case "spec.nodeName" | "spec.host":
            return str(spec.get("nodeName") or node_name)
        case "spec.serviceAccountName":
            return str(spec.get("serviceAccountName") or "")
        case "status.hostIP":
            return host_ips[0] if host_ips else ""
        case "status.hostIPs":
            return ",".join(host_ips)
        case "status.podIP":
            return pod_ips[0] if pod_ips else ""
        case "status.podIPs":
            return ",".join(pod_ips)
    return metadata_field(pod, path)


def _is_qualified_name(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > _PREFIX_LENGTH or _PREFIX.fullmatch(prefix) is None):
        return False
    return _NAME.fullmatch(name) is not None
