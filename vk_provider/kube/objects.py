"""ConfigMaps, Secrets, Services and tokens, as far as this node's pods need them.

A node may read Secrets and ConfigMaps one by one, those that its pods name. Each named object is
watched for as long as a pod names it (kubelet pkg/kubelet/util/manager, watch based), so content
is at hand when the API server is away, and changes are told.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vk_provider.common.clock import Clock
from vk_provider.common.errors import NotFound, Unavailable
from vk_provider.kube.client import KubeClient, Object
from vk_provider.kube.patience import patiently
from vk_provider.kube.references import Kind, references
from vk_provider.kube.reflector import Reflector
from vk_provider.kube.tokens import Token, TokenSource

OnChange = Callable[[Kind, str, str], None]
_PLURALS: dict[Kind, str] = {"ConfigMap": "configmaps", "Secret": "secrets"}
_FIRST_SYNC_S = 10.0
_Key = tuple[Kind, str, str]


class ObjectSource:
    """What pods refer to. `run()` must run for watches and Services; reads work without it.

    `on_change(kind, namespace, name)` is called, synchronously, when an object that somebody has
    read is found to have changed, appeared or gone. Set it before `run()`.
    """

    def __init__(
        self, client: KubeClient, clock: Clock, *, on_change: OnChange | None = None
    ) -> None:
        self.on_change = on_change
        self._client = client
        self._clock = clock
        self._tokens = TokenSource(client, clock)
        self._watched: dict[_Key, _Watched] = {}
        self._pods: dict[str, frozenset[_Key]] = {}
        self._services = _Services()
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Follow Services and what the registered pods name, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                for key in self._watched:
                    self._follow(key)
                services = Reflector(
                    self._client, "/api/v1/services", None, self._services, self._clock
                )
                await services.run()
            finally:
                self._tasks = None

    def register_pod(self, pod: Mapping[str, Any]) -> None:
        """Watch what the pod names; again after its spec changed (ephemeral containers)."""
        metadata = pod["metadata"]
        uid = metadata["uid"]
        wanted = frozenset((k, metadata["namespace"], n) for k, n in references(pod))
        before = self._pods.get(uid, frozenset())
        self._pods[uid] = wanted
        for key in wanted - before:
            watched = self._watched.get(key)
            if watched is None:
                watched = self._watched[key] = _Watched(functools.partial(self._changed, key))
                self._follow(key)
            watched.pods.add(uid)
        self._release(uid, before - wanted)

    def unregister_pod(self, uid: str) -> None:
        """End the watches that only this pod needed, and forget its tokens."""
        self._release(uid, self._pods.pop(uid, frozenset()))
        self._tokens.forget_pod(uid)

    async def config_map(self, namespace: str, name: str) -> Object:
        """Return a ConfigMap; raises NotFound, PermissionDenied or Unavailable."""
        return await self._read("ConfigMap", namespace, name)

    async def secret(self, namespace: str, name: str) -> Object:
        """Return a Secret (values in base64); raises NotFound, PermissionDenied or Unavailable."""
        return await self._read("Secret", namespace, name)

    async def service_account_token(
        self,
        namespace: str,
        service_account: str,
        audiences: Sequence[str],
        expiration_s: int,
        pod: Mapping[str, Any],
    ) -> Token:
        """Return a token bound to the pod, from the cache until its `refresh_at_ns`."""
        return await self._tokens.token(namespace, service_account, audiences, expiration_s, pod)

    async def services(self, namespace: str) -> list[Object]:
        """Return the Services of a namespace, and `default/kubernetes`, for the environment.

        Raises Unavailable when they could not be read even once, as a kubelet refuses to start
        containers then.
        """
        try:
            async with asyncio.timeout(_FIRST_SYNC_S):
                await self._services.synced.wait()
        except TimeoutError as exc:
            raise Unavailable(
                "Services have not yet been read at least once, so the containers' environment "
                "can't be made; is the API server reachable?"
            ) from exc
        return self._services.of(namespace)

    async def _read(self, kind: Kind, namespace: str, name: str) -> Object:
        watched = self._watched.get((kind, namespace, name))
        if watched is not None and watched.object is not None:
            watched.handed_out = _version(watched.object)
            return watched.object
        # Absence is never taken from the cache: the object may be a moment old.
        path = f"/api/v1/namespaces/{namespace}/{_PLURALS[kind]}/{name}"
        try:
            found = await patiently(self._clock, lambda: self._client.get(path))
        except NotFound:
            if watched is not None:
                watched.handed_out = ""
            raise
        if watched is not None:
            watched.handed_out = _version(found)
        return found

    def _follow(self, key: _Key) -> None:
        if self._tasks is None:
            return
        kind, namespace, name = key
        watched = self._watched[key]
        reflector = Reflector(
            self._client,
            f"/api/v1/namespaces/{namespace}/{_PLURALS[kind]}",
            {"fieldSelector": f"metadata.name={name}"},
            watched,
            self._clock,
        )
        watched.task = self._tasks.create_task(
            reflector.run(), name=f"watch {kind} {namespace}/{name}"
        )

    def _release(self, uid: str, keys: frozenset[_Key]) -> None:
        for key in keys:
            watched = self._watched[key]
            watched.pods.discard(uid)
            if not watched.pods:
                del self._watched[key]
                if watched.task is not None:
                    watched.task.cancel()

    def _changed(self, key: _Key) -> None:
        if self.on_change is not None:
            self.on_change(*key)


class _Watched:
    """One object under watch: its newest state, and the version that readers have."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.pods: set[str] = set()
        self.object: Object | None = None
        self.handed_out: str | None = None  # "" for "there is none", None for "nobody asked"
        self.task: asyncio.Task[None] | None = None
        self._tell = tell

    def replace(self, objects: list[Object]) -> None:
        self._set(objects[0] if objects else None)

    def upsert(self, obj: Object) -> None:
        self._set(obj)

    def delete(self, obj: Object) -> None:
        self._set(None)

    def _set(self, obj: Object | None) -> None:
        self.object = obj
        if self.handed_out is not None and self.handed_out != _version(obj):
            self.handed_out = _version(obj)
            self._tell()


class _Services:
    """All Services of the cluster, by namespace and name."""

    def __init__(self) -> None:
        self.synced = asyncio.Event()
        self._by_key: dict[tuple[str, str], Object] = {}

    def of(self, namespace: str) -> list[Object]:
        wanted = [s for (ns, _), s in self._by_key.items() if ns == namespace]
        master = self._by_key.get(("default", "kubernetes"))
        if master is not None and namespace != "default":
            wanted.append(master)
        return wanted

    def replace(self, objects: list[Object]) -> None:
        self._by_key = {_key(o): o for o in objects}
        self.synced.set()

    def upsert(self, obj: Object) -> None:
        self._by_key[_key(obj)] = obj

    def delete(self, obj: Object) -> None:
        self._by_key.pop(_key(obj), None)


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _version(obj: Object | None) -> str:
    return "" if obj is None else str(obj["metadata"].get("resourceVersion"))
