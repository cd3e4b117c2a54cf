"""Events about pods and their containers: where they go, and how they name a container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from vk_provider.pods.podspec import Pod


class Recorder(Protocol):
    """Takes events; `vk_provider.kube.events.EventRecorder` is one."""

    def event(
        self,
        obj: Mapping[str, Any],
        type: Literal["Normal", "Warning"],  # noqa: A002 - the API's own name for it
        reason: str,
        message: str,
        *,
        field_path: str = "",
    ) -> None:
        """Record an event; never blocks."""
        ...


def field_path(pod: Pod, container_name: str) -> str:
    """Return the path that an event about a container carries: `spec.containers{NAME}`."""
    for key in ("initContainers", "ephemeralContainers"):
        if any(c["name"] == container_name for c in pod["spec"].get(key) or ()):
            return f"spec.{key}{{{container_name}}}"
    return f"spec.containers{{{container_name}}}"
