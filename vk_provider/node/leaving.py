"""Leaving the cluster for good: no new pods, the pods away by their grace, then Lease and Node.

The node itself goes on meanwhile: it is what ends the pods. What it may do of this is the Node
authorizer's to say: cordon itself, evict and delete its own pods, delete its Lease; not delete its
Node (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go` NodeRules), which an
administrator's client does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from vk_provider.common.clock import Clock
from vk_provider.common.errors import (
    Conflict,
    DeadlineExceeded,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from vk_provider.kube.client import KubeClient, Object
from vk_provider.kube.patience import patiently
from vk_provider.kube.reflector import Reflector

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_RETRY_S = 5.0  # kubectl drain's pause where a disruption budget says "not now"

Say = Callable[[str], None]


class Departure:
    """One node's leaving, told step by step to `say`. Each step may be repeated."""

    def __init__(self, client: KubeClient, name: str, clock: Clock, say: Say) -> None:
        """`client` is the node's own."""
        self._client = client
        self._name = name
        self._clock = clock
        self._say = say
        self._path = f"/api/v1/nodes/{name}"

    async def is_member(self) -> bool:
        """Tell whether the Node is there."""
        try:
            await self._client.get(self._path)
        except NotFound:
            return False
        return True

    async def cordon(self) -> None:
        """Have no further pods bound to the node."""
        self._say(f"No new pods for node {self._name}: it is unschedulable now")
        await self._client.patch(self._path, {"spec": {"unschedulable": True}})

    async def empty(self, timeout_s: float) -> None:
        """Evict every pod and return when all are gone; those of DaemonSets last.

        Evictions keep disruption budgets. Raises DeadlineExceeded with the pods that are left;
        the node is unschedulable then, and they go on.
        """
        pods = _Evictions(self._client, self._name, self._clock, self._say)
        try:
            async with asyncio.timeout(timeout_s):
                await pods.run()
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"After {timeout_s:g} s these pods are still on node {self._name}: "
                f"{', '.join(pods.left())}. The node stays unschedulable, and nothing else was "
                "removed; see what holds them up (a disruption budget?), and run this again, "
                "perhaps with a longer --timeout"
            ) from exc

    async def remove(self, admin: KubeClient | None) -> bool:
        """Delete Lease and Node; False, and words for an administrator, where that may not be."""
        client = admin or self._client
        try:
            await client.delete(f"{_LEASES}/{self._name}")
            self._say(f"Lease {self._name} is deleted")
        except NotFound:
            pass
        except PermissionDenied as exc:
            self._say(f"The Lease {self._name} stays; it goes with the Node ({exc})")
        try:
            await client.delete(self._path)
        except NotFound:
            return True
        except PermissionDenied as exc:
            self._say(
                f"The Node object {self._name} is still there: its own credentials may not delete "
                f"it ({exc}). To end it, a cluster administrator runs: kubectl delete node "
                f"{self._name} (--admin-kubeconfig would have let this command do it)"
            )
            return False
        self._say(f"Node {self._name} is deleted")
        return True


class _Evictions:
    """The pods of the node as the API has them, and who was asked to go."""

    def __init__(self, client: KubeClient, name: str, clock: Clock, say: Say) -> None:
        self._client = client
        self._clock = clock
        self._say = say
        self._pods: dict[str, Object] = {}
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._daemons: set[str] = set()  # that were there at the beginning
        self._daemons_turn = False
        self._synced = False
        self._changed = asyncio.Event()
        selector = {"fieldSelector": f"spec.nodeName={name}"}
        self._reflector = Reflector(client, "/api/v1/pods", selector, self, clock)

    async def run(self) -> None:
        """Ask them all, and return when they are gone."""
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._reflector.run(), name="pods that leave")
            while not self._over():
                await self._changed.wait()
                self._changed.clear()
                self._daemons_turn = self._daemons_turn or (self._synced and not self._movable())
                for pod in self._to_ask():
                    uid = pod["metadata"]["uid"]
                    self._asked[uid] = tasks.create_task(self._ask(pod), name=f"eviction {uid}")
            for task in (watch, *self._asked.values()):
                task.cancel()

    def left(self) -> list[str]:
        """Return the names of those that are not gone."""
        return sorted(_described(p) for p in self._pods.values())

    # -- ReflectorHandler --

    def replace(self, objects: list[Object]) -> None:
        """Take the whole set."""
        self._pods = {pod["metadata"]["uid"]: pod for pod in objects}
        if not self._synced:
            self._daemons = {uid for uid, pod in self._pods.items() if _is_daemon(pod)}
        self._synced = True
        self._changed.set()

    def upsert(self, obj: Object) -> None:
        """Take one that is new or has changed."""
        self._pods[obj["metadata"]["uid"]] = obj
        self._changed.set()

    def delete(self, obj: Object) -> None:
        """One is gone."""
        self._pods.pop(obj["metadata"]["uid"], None)
        self._changed.set()

    # -- inside --

    def _movable(self) -> list[Object]:
        return [pod for pod in self._pods.values() if not _is_daemon(pod)]

    def _waited_for(self) -> list[Object]:
        # A DaemonSet's pod that goes is replaced at once, on a node that is unschedulable too:
        # its controller stops only when there is no Node. The new ones are not waited for.
        daemons = [self._pods[uid] for uid in self._daemons & self._pods.keys()]
        return [*self._movable(), *daemons]

    def _over(self) -> bool:
        return self._synced and not self._waited_for()

    def _to_ask(self) -> list[Object]:
        pods = self._waited_for() if self._daemons_turn else self._movable()
        return [
            pod
            for pod in pods
            if pod["metadata"]["uid"] not in self._asked
            and not pod["metadata"].get("deletionTimestamp")
        ]

    async def _ask(self, pod: Object) -> None:
        """Evict it, however often that must be asked; a DaemonSet's is deleted."""
        self._say(f"Ending {_described(pod)}")
        told = False
        while True:
            try:
                await patiently(self._clock, lambda: self._send(pod))
                return
            except (NotFound, Conflict):
                return  # it has gone by itself, or another one has its name
            except (Unavailable, DeadlineExceeded) as exc:
                if not told:
                    self._say(f"{_described(pod)} stays for now: {exc}")
                told = True
            await self._clock.sleep(_RETRY_S)

    async def _send(self, pod: Object) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        options: dict[str, Any] = {"preconditions": {"uid": metadata["uid"]}}
        if _is_daemon(pod):
            await self._client.delete(path, body=options)
            return
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "deleteOptions": options,
        }
        await self._client.create(f"{path}/eviction", eviction)


def _is_daemon(pod: Mapping[str, Any]) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(o.get("controller") and o.get("kind") == "DaemonSet" for o in owners)


def _described(pod: Mapping[str, Any]) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
