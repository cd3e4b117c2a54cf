"""Keeps the files of running pods current: new objects, new tokens, new labels.

Event-driven: a change wakes the pod's own task; between changes it sleeps until the next token is
due. Content is compared by digest, so that the guest is told only what is new.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import Clock
from vk_provider.common.errors import FailedPrecondition, NotFound, VkError
from vk_provider.common.logging import get_logger
from vk_provider.pods.errors import VolumeError
from vk_provider.pods.objects import Objects
from vk_provider.pods.podspec import Pod, describe, namespace_of, uid_of
from vk_provider.pods.volumes.build import FILE_SOURCES, build_file_volumes
from vk_provider.pods.volumes.references import volume_references
from vk_provider.pods.waiting import wait_until
from vk_provider.runtime.api import Runtime

_MIN_WAIT_S = 10.0  # before a token that should have been renewed is asked for again
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 122.0  # goroutinemap/exponentialbackoff, as the volume manager

OnError = Callable[[Pod, str], None]


@dataclass(slots=True)
class _Watched:
    pod: Pod
    sandbox_id: str
    sent: dict[str, bytes]  # digest of what the guest has, by volume
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    removed: bool = False


class VolumeRefresher:
    """Owns one task a pod while `run` runs; pods may be added before that.

    `allocatable` is asked for each time (the node's status may change), `on_error` gets the
    message of a FailedMount event.
    """

    def __init__(
        self,
        runtime: Runtime,
        objects: Objects,
        clock: Clock,
        *,
        allocatable: Callable[[], Mapping[str, str]],
        on_error: OnError,
    ) -> None:
        self._runtime = runtime
        self._objects = objects
        self._clock = clock
        self._allocatable = allocatable
        self._on_error = on_error
        self._pods: dict[str, _Watched] = {}
        self._arrivals: asyncio.Queue[_Watched] = asyncio.Queue()
        self._log = get_logger("pods.volumes")

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                watched = await self._arrivals.get()
                group.create_task(self._serve(watched), name=f"volumes/{uid_of(watched.pod)}")

    def add_pod(self, pod: Pod, sandbox_id: str, sent: Iterable[pb.Volume] = ()) -> None:
        """Keep the pod's files current; `sent` is what its sandbox was started with.

        After a restart of the node nothing is known to be sent, and all is sent once more. A new
        sandbox of the same pod replaces the old one.
        """
        uid = uid_of(pod)
        known = self._pods.get(uid)
        if known is not None and known.sandbox_id == sandbox_id:
            self.update_pod(pod)
            return
        self.remove_pod(uid)
        if not any(
            one in volume for volume in pod["spec"].get("volumes") or () for one in FILE_SOURCES
        ):
            return
        watched = _Watched(pod, sandbox_id, {volume.name: _digest(volume) for volume in sent})
        self._pods[uid] = watched
        watched.changed.set()
        self._arrivals.put_nowait(watched)

    def update_pod(self, pod: Pod) -> None:
        """Take note of a pod's new labels, annotations and resources."""
        watched = self._pods.get(uid_of(pod))
        if watched is None or watched.pod is pod:
            return
        before, watched.pod = watched.pod, pod
        if _downward_view(before) != _downward_view(pod):
            watched.changed.set()

    def remove_pod(self, uid: str) -> None:
        """Stop serving a pod; unknown ones are fine."""
        watched = self._pods.pop(uid, None)
        if watched is not None:
            watched.removed = True
            watched.changed.set()

    def object_changed(self, kind: str, namespace: str, name: str) -> None:
        """Take note of a ConfigMap or Secret that was added, changed or deleted."""
        for watched in self._pods.values():
            if namespace_of(watched.pod) == namespace and (kind, name) in volume_references(
                watched.pod
            ):
                watched.changed.set()

    async def _serve(self, watched: _Watched) -> None:
        retry_s = _FIRST_RETRY_S
        while not watched.removed:
            watched.changed.clear()
            try:
                wait_s = await self._refresh(watched)
                retry_s = _FIRST_RETRY_S
            except (NotFound, FailedPrecondition):
                self._forget(watched)  # its sandbox has ended
                return
            except VolumeError as exc:
                for message in exc.messages:
                    self._on_error(watched.pod, message)
                wait_s, retry_s = retry_s, min(retry_s * 2, _LONGEST_RETRY_S)
            except VkError as exc:
                self._log.warning(
                    "could not update volumes, will try again",
                    pod=describe(watched.pod),
                    error=str(exc),
                    retry_s=retry_s,
                )
                wait_s, retry_s = retry_s, min(retry_s * 2, _LONGEST_RETRY_S)
            await wait_until(watched.changed, self._clock, wait_s)

    async def _refresh(self, watched: _Watched) -> float | None:
        """Send what has changed; return the seconds until the next renewal, None for never."""
        built = await build_file_volumes(
            watched.pod, self._objects, allocatable=self._allocatable()
        )
        for volume in built.volumes:
            if watched.removed:
                return None
            digest = _digest(volume)
            if watched.sent.get(volume.name) != digest:
                await self._runtime.update_volume(watched.sandbox_id, volume)
                watched.sent[volume.name] = digest
        if built.renew_at_ns is None:
            return None
        return max((built.renew_at_ns - self._clock.now_ns()) / 1e9, _MIN_WAIT_S)

    def _forget(self, watched: _Watched) -> None:
        if self._pods.get(uid_of(watched.pod)) is watched:
            del self._pods[uid_of(watched.pod)]


def _digest(volume: pb.Volume) -> bytes:
    return hashlib.sha256(volume.SerializeToString(deterministic=True)).digest()


def _downward_view(pod: Pod) -> tuple[object, ...]:
    """What of a pod its own files may show and may change."""
    metadata, spec = pod["metadata"], pod["spec"]
    resources = [
        container.get("resources")
        for kind in ("initContainers", "containers")
        for container in spec.get(kind) or ()
    ]
    return metadata.get("labels"), metadata.get("annotations"), resources, spec.get("resources")
