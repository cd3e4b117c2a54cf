"""What every pod's worker stands on: one object, made once for the node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import Clock
from vk_provider.common.errors import Unavailable
from vk_provider.pods.backoff import Backoff
from vk_provider.pods.images import ImageManager
from vk_provider.pods.killing import Killer
from vk_provider.pods.objects import Objects
from vk_provider.pods.podspec import Pod
from vk_provider.pods.probes.manager import ProbeManager
from vk_provider.pods.recorder import Recorder
from vk_provider.pods.settings import PodSettings
from vk_provider.pods.status.writer import StatusApi
from vk_provider.pods.volumes.refresher import VolumeRefresher
from vk_provider.runtime.api import Runtime


class PodObjects(Objects, Protocol):
    """What pods refer to (`vk_provider.kube.objects.ObjectSource`)."""

    async def services(self, namespace: str) -> Iterable[Mapping[str, Any]]:
        """Return the Services that a pod's environment may tell of."""
        ...

    def register_pod(self, pod: Mapping[str, Any]) -> None:
        """Watch what the pod names."""
        ...

    def unregister_pod(self, uid: str) -> None:
        """End the watches that only this pod needed."""
        ...


class NodeView(Protocol):
    """The node as the cluster knows it; kept current by whoever registers it."""

    def node(self) -> Mapping[str, Any] | None:
        """Return the newest Node object; None before there is one."""
        ...


class HostInfoCache:
    """What the agent says of its host, asked for once and again after it changed."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._info: pb.HostInfo | None = None

    async def get(self) -> pb.HostInfo:
        """Return it; raises what the runtime raises."""
        if self._info is None:
            self._info = await self._runtime.host_info()
        return self._info

    def forget(self) -> None:
        """Ask again the next time."""
        self._info = None


@dataclass(frozen=True, slots=True)
class PodServices:
    """The collaborators of a worker."""

    api: StatusApi
    runtime: Runtime
    recorder: Recorder
    objects: PodObjects
    probes: ProbeManager
    volumes: VolumeRefresher
    images: ImageManager
    killer: Killer
    restarts: Backoff
    host: HostInfoCache
    node: NodeView
    settings: PodSettings
    clock: Clock

    def known_node(self) -> Mapping[str, Any]:
        """Return the Node object; raises Unavailable before there is one."""
        node = self.node.node()
        if node is None:
            raise Unavailable("the node is not registered yet; its pods wait for it")
        return node

    def host_ips(self) -> list[str]:
        """Return the node's internal addresses, the preferred one first; none while unknown."""
        addresses = ((self.node.node() or {}).get("status") or {}).get("addresses") or ()
        return [str(a["address"]) for a in addresses if a["type"] == "InternalIP"]

    def allocatable(self) -> Mapping[str, str]:
        """Return the node's allocatable quantities."""
        found: Mapping[str, str] = self.known_node().get("status", {}).get("allocatable") or {}
        return found


def host_ips_for(pod: Pod, services: PodServices) -> list[str]:
    """Return the addresses that the pod's status shows as its host's."""
    return services.host_ips() or [
        str(entry["ip"]) for entry in (pod.get("status") or {}).get("hostIPs") or ()
    ]
