"""What the API needs from the rooms below, as protocols."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class PodEntry(Protocol):
    """One pod of the node (`vk_provider.pods.entry.PodEntry`)."""

    @property
    def pod(self) -> Mapping[str, Any]:
        """The v1 Pod with its newest status."""
        ...

    @property
    def sandbox_id(self) -> str:
        """The newest sandbox's id, "" for none."""
        ...

    def container_id(self, name: str, previous: bool = False) -> str | None:
        """Return the id of a container's latest run, or of the one before."""
        ...


class PodSource(Protocol):
    """The node's pods (`vk_provider.pods.manager.PodManager`)."""

    def pods(self) -> list[dict[str, Any]]:
        """Return all pods, each a v1 Pod with its newest status."""
        ...

    def find(self, namespace: str, name: str, uid: str = "") -> PodEntry | None:
        """Return the pod of that name, and of that UID where one is given."""
        ...


class Reviewer(Protocol):
    """Who answers access reviews (`vk_provider.kube.client.KubeClient`)."""

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST an object and return the answer; raises kinds of `vk_provider.common.errors`."""
        ...


@dataclass(frozen=True, slots=True)
class KubeletApiSettings:
    """How the API is served.

    `healthz_port` 0: no plain HTTP for health on the loopback. `version` is the kubelet's, as the
    Node tells it. `config` is what /configz shows besides these, in KubeletConfiguration's names.
    """

    node_name: str
    listen_address: str = "0.0.0.0"
    port: int = 10250
    healthz_port: int = 10248
    version: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
