"""The node's Lease: the heartbeat that the node lifecycle controller reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from vk_provider.common.clock import Clock, sleep_until_set
from vk_provider.common.errors import AlreadyExists, Conflict, NotFound, VkError
from vk_provider.common.logging import get_logger
from vk_provider.kube.client import KubeClient, Object
from vk_provider.node.settings import NodeSettings

_COLLECTION = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_RETRY_S = 1.0

log = get_logger("node.lease")


class LeaseKeeper:
    """Renews the Lease; one that was deleted, or belongs to a Node that was, is made anew."""

    def __init__(
        self,
        client: KubeClient,
        settings: NodeSettings,
        clock: Clock,
        node_uid: Callable[[], str],
    ) -> None:
        """`node_uid` returns the UID of the Node, the Lease's owner; "" while there is none."""
        self._client = client
        self._settings = settings
        self._clock = clock
        self._node_uid = node_uid
        self._lease: Object | None = None
        self._hurry = asyncio.Event()
        self._path = f"{_COLLECTION}/{settings.name}"

    async def run(self) -> None:
        """Renew until cancelled."""
        failing = False
        while True:
            try:
                # A server that holds the request must not hold up the next (kubelet's
                # heartbeat client has the same limit).
                async with asyncio.timeout(self._settings.lease_interval_s):
                    await self.renew()
                pause = self._settings.lease_interval_s
                if failing:
                    log.info("lease renewed again")
                failing = False
            except (VkError, TimeoutError) as exc:
                tell = log.debug if failing else log.warning
                tell("lease not renewed, trying on", error=str(exc) or "no answer in time")
                failing = True
                pause = _RETRY_S
            await sleep_until_set(self._clock, pause, self._hurry)
            self._hurry.clear()

    def hurry(self) -> None:
        """Renew now instead of at the next turn."""
        self._hurry.set()

    async def renew(self) -> None:
        """Renew once; raises what the server says when it can't be."""
        for _ in range(3):
            try:
                if self._lease is None:
                    self._lease = await self._fetch()
                if self._lease is None:
                    self._lease = await self._client.create(_COLLECTION, self._body(None))
                else:
                    self._lease = await self._client.update(self._path, self._body(self._lease))
                return
            except (AlreadyExists, Conflict, NotFound) as exc:
                # Somebody else wrote or removed it: look again.
                self._lease = None
                last: VkError = exc
        raise last

    async def _fetch(self) -> Object | None:
        try:
            return await self._client.get(self._path)
        except NotFound:
            return None

    def _body(self, lease: Object | None) -> Object:
        metadata: dict[str, Any] = dict(lease["metadata"]) if lease is not None else {}
        metadata |= {"name": self._settings.name, "namespace": "kube-node-lease"}
        if uid := self._node_uid():
            # With the Node the Lease goes; a stale owner would have it collected again and again.
            metadata["ownerReferences"] = [
                {"apiVersion": "v1", "kind": "Node", "name": self._settings.name, "uid": uid}
            ]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self._settings.name,
                "leaseDurationSeconds": self._settings.lease_duration_s,
                "renewTime": _micro_time(self._clock.now_ns()),
            },
        }


def _micro_time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
