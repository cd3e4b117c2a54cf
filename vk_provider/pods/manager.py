"""All pods of the node: a worker each, fed by the API's watch and the runtime's events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import Clock
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger
from vk_provider.kube.client import KubeClient
from vk_provider.kube.reflector import Reflector
from vk_provider.pods.admission import Rejection, admit, fit
from vk_provider.pods.backoff import Backoff
from vk_provider.pods.entry import PodEntry
from vk_provider.pods.images import ImageManager
from vk_provider.pods.killing import Killer
from vk_provider.pods.orphans import OrphanCollector
from vk_provider.pods.podspec import Pod, describe, name_of, namespace_of, uid_of
from vk_provider.pods.probes.manager import ProbeManager, ProbeUpdate
from vk_provider.pods.recorder import Recorder
from vk_provider.pods.services import HostInfoCache, NodeView, PodObjects, PodServices
from vk_provider.pods.settings import PodSettings
from vk_provider.pods.volumes.refresher import VolumeRefresher
from vk_provider.pods.worker import PodWorker
from vk_provider.runtime.api import Runtime

_RETRY_S = (0.2, 5.0)
_RESTART_S = (1.0, 60.0)

log = get_logger("pods.manager")


class PodManager:
    """Runs the pods that the API binds to this node.

    `objects.on_change` is to be set to `object_changed`. `settings.node_name` says whose pods
    they are. While `run` runs, it owns every task of this room.
    """

    def __init__(
        self,
        client: KubeClient,
        runtime: Runtime,
        recorder: Recorder,
        objects: PodObjects,
        node: NodeView,
        settings: PodSettings,
        clock: Clock,
    ) -> None:
        self._client = client
        self._runtime = runtime
        self._settings = settings
        self._clock = clock
        self._workers: dict[str, PodWorker] = {}
        self._arrivals: asyncio.Queue[PodWorker] = asyncio.Queue()
        self._host = HostInfoCache(runtime)
        self._orphans = OrphanCollector(runtime, clock, self._workers.__contains__)
        self._synced = asyncio.Event()
        self._probes = ProbeManager(runtime, clock, recorder=recorder, on_result=self._probed)
        self._volumes = VolumeRefresher(
            runtime,
            objects,
            clock,
            allocatable=self._allocatable,
            on_error=lambda pod, text: recorder.event(pod, "Warning", "FailedMount", text),
        )
        self._services = PodServices(
            api=client,
            runtime=runtime,
            recorder=recorder,
            objects=objects,
            probes=self._probes,
            volumes=self._volumes,
            images=ImageManager(runtime, objects, recorder, clock),
            killer=Killer(runtime, recorder, clock),
            restarts=Backoff(),
            host=self._host,
            node=node,
            settings=settings,
            clock=clock,
        )

    # ---- for others ----

    def pods(self) -> list[dict[str, Any]]:
        """Return the pods of this node with their newest statuses, in no order."""
        return [dict(worker.pod) for worker in self._workers.values()]

    def find(self, namespace: str, name: str, uid: str = "") -> PodEntry | None:
        """Return the pod of that name, and of that UID where one is given.

        Where a pod of the same name is still on its way out, the one that is not is returned.
        """
        found: PodWorker | None = None
        for worker in self._workers.values():
            pod = worker.ctx.pod
            if namespace_of(pod) != namespace or name_of(pod) != name:
                continue
            if uid in {"", uid_of(pod)} and (found is None or worker.holds_resources):
                found = worker
        return PodEntry(found.pod, found.ctx.state) if found is not None else None

    @property
    def synced(self) -> asyncio.Event:
        """Set once the API's full list of this node's pods has come."""
        return self._synced

    def object_changed(self, kind: str, namespace: str, name: str) -> None:
        """Take note of a ConfigMap or Secret that was added, changed or deleted."""
        self._volumes.object_changed(kind, namespace, name)
        for worker in self._workers.values():
            if namespace_of(worker.ctx.pod) == namespace:
                worker.objects_changed()

    async def run(self) -> None:
        """Run the pods until cancelled; they go on running without this process."""
        reflector = Reflector(
            self._client,
            "/api/v1/pods",
            {"fieldSelector": f"spec.nodeName={self._settings.node_name}"},
            self,
            self._clock,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(reflector.run(), name="pods/reflector")
            group.create_task(self._follow_events(), name="pods/events")
            group.create_task(self._orphans.run(), name="pods/orphans")
            group.create_task(self._probes.run(), name="pods/probes")
            group.create_task(self._volumes.run(), name="pods/volumes")
            while True:
                worker = await self._arrivals.get()
                name = f"pod/{describe(worker.ctx.pod)}"
                group.create_task(self._live(worker), name=name)

    # ---- the API's side (ReflectorHandler) ----

    def replace(self, objects: list[dict[str, Any]]) -> None:
        """Take the whole set of pods; a pod that is not in it is gone."""
        present = {uid_of(pod) for pod in objects}
        for uid, worker in self._workers.items():
            if uid not in present:
                worker.leave(worker.ctx.pod)
        for pod in sorted(objects, key=_creation_time):
            self.upsert(pod)
        self._synced.set()
        self._orphans.sweep()

    def upsert(self, obj: dict[str, Any]) -> None:
        """Take a pod that is new or has changed."""
        worker = self._workers.get(uid_of(obj))
        if worker is not None:
            worker.update(obj)
            return
        worker = PodWorker(obj, self._services, self._admit, self._fit, self._retry_resizes)
        self._workers[uid_of(obj)] = worker
        self._arrivals.put_nowait(worker)

    def delete(self, obj: dict[str, Any]) -> None:
        """Take leave of a pod."""
        worker = self._workers.get(uid_of(obj))
        if worker is not None:
            worker.leave(obj)

    # ---- inside ----

    async def _live(self, worker: PodWorker) -> None:
        """Run a worker to its end; one that fails is replaced, and harms its own pod alone."""
        pause_s = _RESTART_S[0]
        while True:
            try:
                await worker.run()
                break
            except Exception:  # a defect met by one pod must not end all the others
                log.exception("pod worker failed", pod=describe(worker.ctx.pod), retry_s=pause_s)
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, _RESTART_S[1])
            worker = worker.successor()
            self._workers[worker.ctx.uid] = worker
        self._workers.pop(worker.ctx.uid, None)

    def _admit(self, pod: Pod) -> Rejection | None:
        node = self._services.known_node()
        active = [w.ctx.pod for w in self._workers.values() if w.holds_resources]
        return admit(
            pod,
            active_pods=active,
            allocatable=self._services.allocatable(),
            node=node,
            settings=self._settings,
        )

    def _fit(self, pod: Pod) -> Rejection | None:
        active = [w.ctx.pod for w in self._workers.values() if w.holds_resources]
        return fit(pod, active_pods=active, allocatable=self._services.allocatable())

    def _retry_resizes(self) -> None:
        """Have those look again whose resize waits for room, the most important first."""
        waiting = [w for w in self._workers.values() if w.ctx.resizing.deferred]
        for worker in sorted(waiting, key=lambda w: -int(w.ctx.pod["spec"].get("priority") or 0)):
            worker.wake()

    def _allocatable(self) -> Mapping[str, str]:
        return self._services.allocatable()

    def _probed(self, update: ProbeUpdate) -> None:
        worker = self._workers.get(update.pod_uid)
        if worker is not None:
            worker.wake()

    async def _follow_events(self) -> None:
        """Hand the runtime's events to the workers; after a gap everybody looks again."""
        after_seq, pause_s = 0, _RETRY_S[0]
        while True:
            try:
                if not after_seq:
                    after_seq = (await self._runtime.list_sandboxes("-")).event_seq
                    self._everybody_looks()
                async with aclosing(self._runtime.watch_events(after_seq)) as events:
                    async for event in events:
                        after_seq = event.seq
                        pause_s = _RETRY_S[0]
                        self._handle(event)
                log.info("the stream of runtime events ended, following it again")
            except VkError as exc:
                log.warning("runtime events not followed", error=str(exc), retry_s=pause_s)
            after_seq = 0
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, _RETRY_S[1])

    def _handle(self, event: pb.Event) -> None:
        if event.kind == pb.Event.RESYNC:
            self._everybody_looks()
        elif event.kind == pb.Event.HOST_CHANGED:
            self._host.forget()
        elif (worker := self._workers.get(event.pod_uid)) is not None:
            worker.runtime_changed()

    def _everybody_looks(self) -> None:
        self._host.forget()
        for worker in self._workers.values():
            worker.runtime_changed()
        if self._synced.is_set():
            self._orphans.sweep()


def _creation_time(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"].get("creationTimestamp") or "")
