"""Reading pods as the API server sends them: raw JSON, in which what is unset is absent.

Only access and naming; whatever follows from a field stands in the field's own module.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Pod = Mapping[str, Any]
Container = Mapping[str, Any]
VolumeSpec = Mapping[str, Any]


def namespace_of(pod: Pod) -> str:
    """Return the pod's namespace."""
    return str(pod["metadata"]["namespace"])


def name_of(pod: Pod) -> str:
    """Return the pod's name."""
    return str(pod["metadata"]["name"])


def uid_of(pod: Pod) -> str:
    """Return the pod's UID."""
    return str(pod["metadata"]["uid"])


def describe(pod: Pod) -> str:
    """Name a pod in a message as the kubelet does: `name_namespace(uid)` (util/format.Pod)."""
    return f"{name_of(pod)}_{namespace_of(pod)}({uid_of(pod)})"


def app_containers(pod: Pod) -> list[Container]:
    """Return the pod's ordinary containers."""
    return list(pod["spec"].get("containers") or ())


def init_containers(pod: Pod) -> list[Container]:
    """Return the init containers, sidecars among them, in order."""
    return list(pod["spec"].get("initContainers") or ())


def is_sidecar(container: Container) -> bool:
    """Say whether an init container is one that goes on running (restartPolicy Always)."""
    return container.get("restartPolicy") == "Always"


def all_containers(pod: Pod) -> Iterator[Container]:
    """Yield init, app and ephemeral containers."""
    yield from init_containers(pod)
    yield from app_containers(pod)
    yield from pod["spec"].get("ephemeralContainers") or ()


def volumes_of(pod: Pod) -> list[VolumeSpec]:
    """Return the pod's volumes."""
    return list(pod["spec"].get("volumes") or ())


def pod_security(pod: Pod) -> Mapping[str, Any]:
    """Return the pod's security context, empty where there is none."""
    security: Mapping[str, Any] = pod["spec"].get("securityContext") or {}
    return security


_ESCAPES = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}


def go_quote(text: str) -> str:
    """Quote as Go's strconv.Quote: the downward API's label and annotation files are in it."""
    out = []
    for char in text:
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char.isprintable():
            out.append(char)
        elif ord(char) < 0x80:
            out.append(f"\\x{ord(char):02x}")
        elif ord(char) < 0x10000:
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(f"\\U{ord(char):08x}")
    return '"' + "".join(out) + '"'


def short_json(value: object) -> str:
    """Render a value of a spec for a message."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
