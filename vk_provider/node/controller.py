"""Keeps the Node true: registers it, patches what changed, makes it anew when it is deleted."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import Clock
from vk_provider.common.errors import AlreadyExists, NotFound, PermissionDenied, VkError
from vk_provider.common.logging import get_logger
from vk_provider.kube.client import KubeClient
from vk_provider.kube.events import EventRecorder, EventType, ObjectRef
from vk_provider.kube.reflector import Reflector
from vk_provider.node.conditions import Transition, make_conditions
from vk_provider.node.lease import LeaseKeeper
from vk_provider.node.settings import NodeSettings
from vk_provider.node.status import (
    Node,
    make_labels,
    make_node,
    make_patch,
    make_status,
    node_addresses,
)
from vk_provider.runtime.api import Runtime

_NODES = "/api/v1/nodes"
_RETRY_S = (0.2, 5.0)
_RUNTIME_RETRY_S = 1.0

log = get_logger("node")


class NodeController:
    """Owns the Node object of this process. `run()` works until cancelled.

    Reacts to changes of the host (the agent's events), of the Node (a watch), and to the agent's
    coming and going; besides, it looks each `status_interval_s`, and reports at least each
    `report_interval_s`, as a kubelet does.
    """

    def __init__(
        self,
        client: KubeClient,
        runtime: Runtime,
        recorder: EventRecorder,
        settings: NodeSettings,
        clock: Clock,
    ) -> None:
        self.on_change: Callable[[], None] | None = None
        """Called when `node()` or `host` is another than before."""
        self._client = client
        self._runtime = runtime
        self._recorder = recorder
        self._settings = settings
        self._clock = clock
        self._path = f"{_NODES}/{settings.name}"
        self._node: Node | None = None
        self._host: pb.HostInfo | None = None
        self._images: list[pb.Image] = []
        self._problem = "container runtime status check may not have completed yet"
        self._away_since: float | None = None
        self._reported_at: float | None = None
        self._report_after_s = settings.report_interval_s
        self._configured_cidrs: list[str] | None = None
        self._unschedulable = False
        self._wake = asyncio.Event()
        self._registered = asyncio.Event()
        self._host_known = asyncio.Event()
        self._lease = LeaseKeeper(client, settings, clock, self._uid)

    def node(self) -> Node | None:
        """Return the Node as last seen; None while it does not exist."""
        return self._node

    @property
    def host(self) -> pb.HostInfo | None:
        """What the agent last said of its host; None before it first answered."""
        return self._host

    @property
    def addresses(self) -> tuple[str, ...]:
        """The node's IP addresses, the primary one first."""
        return node_addresses(self._settings, self._host)

    def allocatable(self) -> Mapping[str, str]:
        """Return what pods may use, as quantities; {} while unknown."""
        found: Mapping[str, str] = ((self._node or {}).get("status") or {}).get("allocatable") or {}
        return found

    async def wait_host(self) -> pb.HostInfo:
        """Return the host's description as soon as the agent has answered once."""
        await self._host_known.wait()
        assert self._host is not None
        return self._host

    async def wait_registered(self) -> None:
        """Return as soon as the Node exists."""
        await self._registered.wait()

    async def run(self) -> None:
        """Work until cancelled."""
        reflector = Reflector(
            self._client,
            _NODES,
            {"fieldSelector": f"metadata.name={self._settings.name}"},
            self,
            self._clock,
        )
        self._event("Normal", "Starting", "Starting kubelet.")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_status(), name="node status")
            tasks.create_task(self._tick(), name="node status ticks")
            tasks.create_task(self._follow_runtime(), name="node follows the agent")
            tasks.create_task(self._start_reflector(reflector), name="node watch")
            tasks.create_task(self._start_lease(), name="node lease")

    # -- ReflectorHandler --

    def replace(self, objects: list[Node]) -> None:
        """Take the Node as listed."""
        if objects:
            self.upsert(objects[0])
        else:
            self._gone()

    def upsert(self, obj: Node) -> None:
        """Take the Node as it is now."""
        before = self._node
        self._node = obj
        if before is None or _watched_part(before) != _watched_part(obj):
            self._wake.set()
            self._changed()

    def delete(self, obj: Node) -> None:
        """Somebody deleted the Node."""
        self._gone()

    def _gone(self) -> None:
        if self._node is not None:
            log.warning("the Node was deleted; registering it again", node=self._settings.name)
        self._node = None
        self._wake.set()

    # -- tasks --

    async def _start_reflector(self, reflector: Reflector) -> None:
        # Before the Node exists there is nothing to see, and an authorizer may refuse the look.
        await self._registered.wait()
        await reflector.run()

    async def _start_lease(self) -> None:
        await self._registered.wait()
        await self._lease.run()

    async def _tick(self) -> None:
        while True:
            self._wake.set()
            await self._clock.sleep(self._settings.status_interval_s)

    async def _follow_runtime(self) -> None:
        """Have the status looked at when the host changes, and when the agent goes or comes."""
        while True:
            try:
                async with contextlib.aclosing(self._runtime.watch_events(0)) as events:
                    async for event in events:
                        if event.kind in {pb.Event.RESYNC, pb.Event.HOST_CHANGED}:
                            self._wake.set()
            except VkError as exc:
                log.debug("the agent's events ended", error=str(exc))
            self._configured_cidrs = None
            self._wake.set()
            await self._clock.sleep(_RUNTIME_RETRY_S)

    async def _keep_status(self) -> None:
        pause = _RETRY_S[0]
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._look_at_host()
                await self._sync()
                self._tell_schedulable()
                await self._configure_runtime()
                pause = _RETRY_S[0]
            except VkError as exc:
                tell = log.warning if pause == _RETRY_S[0] else log.debug
                tell("node status not written, trying on", error=str(exc))
                await self._clock.sleep(pause)
                pause = min(pause * 2, _RETRY_S[1])
                self._wake.set()

    # -- steps --

    async def _look_at_host(self) -> None:
        try:
            host = await self._runtime.host_info()
            self._images = await self._runtime.list_images()
        except VkError as exc:
            now = self._clock.monotonic()
            if self._away_since is None:
                self._away_since = now
                log.warning("the agent does not answer", error=str(exc))
            away_s = now - self._away_since
            # Not at once: a restart of the agent must not make every pod unready.
            if self._host is None or away_s >= self._settings.agent_grace_s:
                self._problem = f"container runtime is down: {exc}"
            return
        if self._away_since is not None:
            log.info("the agent answers again")
        self._away_since = None
        self._problem = ""
        changed = host != self._host
        self._host = host
        self._host_known.set()
        if changed:
            self._changed()

    async def _sync(self) -> None:
        if self._node is None:
            await self._register()
        node = self._node
        assert node is not None
        previous = (node.get("status") or {}).get("conditions") or ()
        away = self._away_since is not None
        conditions, transitions = make_conditions(
            None if away else self._host, self._problem, previous, self._clock.now_ns()
        )
        if away and not self._problem:
            return  # within the grace: the last report stands
        status = make_status(self._settings, self._host, self._images)
        labels = make_labels(self._settings, self._host)
        patch, changed = make_patch(node, labels, status, conditions)
        if not changed and not self._report_due():
            return
        rebooted = self._rebooted(node)
        try:
            self._node = await self._client.patch(f"{self._path}/status", patch, kind="strategic")
        except NotFound:
            self._gone()
            return
        self._reported(changed)
        self._tell(transitions)
        if rebooted:
            self._event("Warning", "Rebooted", rebooted)
        self._changed()

    async def _register(self) -> None:
        conditions, _ = make_conditions(self._host, self._problem, (), self._clock.now_ns())
        body = make_node(self._settings, self._host, conditions)
        try:
            self._node = await self._client.create(_NODES, body)
            log.info("node registered", node=self._settings.name)
            # A Node that was deleted takes its Lease along; without one it would seem dead.
            self._lease.hurry()
        except (AlreadyExists, PermissionDenied) as exc:
            # A node may be forbidden to create itself where an administrator has done it.
            try:
                self._node = await self._client.get(self._path)
            except NotFound:
                raise exc from None
            except PermissionDenied as refused:
                # To be told is the right that it lacks first.
                raise (exc if isinstance(exc, PermissionDenied) else refused) from None
            log.info("node was registered before", node=self._settings.name)
        self._registered.set()
        self._changed()

    def _tell_schedulable(self) -> None:
        unschedulable = bool(((self._node or {}).get("spec") or {}).get("unschedulable"))
        if unschedulable != self._unschedulable:
            self._unschedulable = unschedulable
            reason = "NodeNotSchedulable" if unschedulable else "NodeSchedulable"
            self._tell([Transition(reason)])

    async def _configure_runtime(self) -> None:
        spec = (self._node or {}).get("spec") or {}
        cidrs = list(spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")]))
        if cidrs and cidrs != self._configured_cidrs and self._away_since is None:
            await self._runtime.update_runtime_config(cidrs)
            self._configured_cidrs = cidrs
            self._wake.set()  # the network may be ready now

    def _report_due(self) -> bool:
        if self._reported_at is None:
            return True
        return self._clock.monotonic() - self._reported_at >= self._report_after_s

    def _reported(self, changed: bool) -> None:
        # Spread over the interval after a change, so that nodes don't report all at once.
        interval = self._settings.report_interval_s
        spread = random.uniform(-0.5, 0.5) if changed or self._reported_at is None else 0.0
        self._report_after_s = interval * (1 + spread)
        self._reported_at = self._clock.monotonic()

    def _rebooted(self, node: Node) -> str:
        before = ((node.get("status") or {}).get("nodeInfo") or {}).get("bootID")
        if self._host is None or not before or before == self._host.boot_id:
            return ""
        return f"Node {self._settings.name} has been rebooted, boot id: {self._host.boot_id}"

    def _tell(self, transitions: list[Transition]) -> None:
        for transition in transitions:
            text = f"Node {self._settings.name} status is now: {transition.reason}"
            self._event("Normal", transition.reason, text)

    def _event(self, kind: EventType, reason: str, message: str) -> None:
        # kubectl describe node finds events by the Node's UID or, where it was unknown, its name.
        name = self._settings.name
        self._recorder.event(
            ObjectRef("Node", name, uid=self._uid() or name), kind, reason, message
        )

    def _uid(self) -> str:
        return str(self._node["metadata"]["uid"]) if self._node is not None else ""

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()


def _watched_part(node: Node) -> object:
    """What of the Node, when others change it, asks for a look: not our own heartbeats."""
    metadata, status = node["metadata"], node.get("status") or {}
    return (
        metadata["uid"],
        metadata.get("labels"),
        node.get("spec"),
        status.get("capacity"),
        status.get("allocatable"),
        [c["status"] for c in status.get("conditions") or () if c["type"] == "Ready"],
    )
