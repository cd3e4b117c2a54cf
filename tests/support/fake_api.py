"""An API server for pods in memory: as much of one as the pod room asks of it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vk_provider.common.clock import Clock
from vk_provider.common.errors import Conflict, NotFound, Unavailable, VkError
from vk_provider.kube.client import WatchEvent

_MERGE_KEYS = {"conditions": "type", "podIPs": "ip", "hostIPs": "ip"}
Json = dict[str, Any]


@dataclass(frozen=True)
class RecordedEvent:
    type: str
    reason: str
    message: str
    field_path: str


class FakeApi:
    """Implements what Reflector and StatusWriter need; also the recorder and the objects."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.pods: dict[tuple[str, str], Json] = {}
        self.patches: list[Json] = []
        self.deletes: list[Json] = []
        self.events: list[RecordedEvent] = []
        self.config_maps: dict[tuple[str, str], Json] = {}
        self.secrets: dict[tuple[str, str], Json] = {}
        self.registered: set[str] = set()
        self.trouble: VkError | None = None
        """What every request is answered with instead."""
        self.slow_s = 0.0
        """How long every answer takes; a watch's, to begin."""
        self.node_object: Json | None = {
            "metadata": {"name": "vk", "labels": {}},
            "spec": {},
            "status": {
                "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            },
        }
        self._version = 0
        self._log: list[tuple[int, WatchEvent]] = []
        self._news = asyncio.Event()

    # ---- what users do ----

    def create(self, pod: Json) -> Json:
        pod = copy.deepcopy(pod)
        pod["metadata"].setdefault("generation", 1)
        pod["metadata"].setdefault("creationTimestamp", self._now())
        pod.setdefault("status", {"phase": "Pending", "qosClass": "BestEffort"})
        self._store("ADDED", pod)
        return pod

    def change(self, name: str, **spec: Any) -> None:
        pod = copy.deepcopy(self.pods["default", name])
        pod["spec"].update(spec)
        pod["metadata"]["generation"] += 1
        self._store("MODIFIED", pod)

    def request_deletion(self, name: str, grace_s: int | None = None) -> None:
        pod = copy.deepcopy(self.pods["default", name])
        if grace_s is None:
            grace_s = pod["spec"].get("terminationGracePeriodSeconds", 30)
        pod["metadata"]["deletionTimestamp"] = self._now(grace_s)
        pod["metadata"]["deletionGracePeriodSeconds"] = grace_s
        self._store("MODIFIED", pod)

    def remove(self, name: str) -> None:
        pod = copy.deepcopy(self.pods.pop(("default", name)))
        self._store("DELETED", pod)

    def status(self, name: str) -> Json:
        found: Json = self.pods["default", name]["status"]
        return found

    def reasons(self) -> list[str]:
        return [event.reason for event in self.events]

    # ---- KubeClient ----

    async def list(self, path: str, params: Mapping[str, Any] | None = None) -> Json:
        await self._turn()
        return {
            "kind": "PodList",
            "items": [copy.deepcopy(p) for p in self.pods.values()],
            "metadata": {"resourceVersion": str(self._version)},
        }

    async def watch(
        self, path: str, params: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        await self._turn()
        seen = int((params or {}).get("resourceVersion") or 0)
        while True:
            for version, event in self._log:
                if version > seen:
                    seen = version
                    yield copy.deepcopy(event)
            news = self._news
            await news.wait()
            self._check()

    async def patch(self, path: str, body: Any, *, kind: Any = "merge") -> Json:
        await self._turn()
        assert kind == "strategic" and path.endswith("/status")
        pod = self._named(path.removesuffix("/status"))
        if body["metadata"]["uid"] != pod["metadata"]["uid"]:
            raise Conflict("the UID in the precondition does not match")
        self.patches.append(copy.deepcopy(body))
        pod = copy.deepcopy(pod)
        pod["status"] = _merged(pod.get("status", {}), body["status"])
        if notes := body["metadata"].get("annotations"):
            pod["metadata"].setdefault("annotations", {}).update(notes)
        self._store("MODIFIED", pod)
        return copy.deepcopy(pod)

    async def delete(self, path: str, *, body: Json | None = None) -> Json:
        await self._turn()
        pod = self._named(path)
        assert body is not None and body["gracePeriodSeconds"] == 0
        if body["preconditions"]["uid"] != pod["metadata"]["uid"]:
            raise Conflict("the UID in the precondition does not match")
        self.deletes.append(copy.deepcopy(pod))
        self.remove(pod["metadata"]["name"])
        return pod

    # ---- recorder, objects, node ----

    def event(
        self,
        obj: Any,
        type: Any,  # noqa: A002 - the name in the API
        reason: str,
        message: str,
        *,
        field_path: str = "",
    ) -> None:
        self.events.append(RecordedEvent(type, reason, message, field_path))

    async def config_map(self, namespace: str, name: str) -> Json:
        return self._object(self.config_maps, namespace, name)

    async def secret(self, namespace: str, name: str) -> Json:
        return self._object(self.secrets, namespace, name)

    async def service_account_token(self, *args: Any) -> Any:
        raise NotFound("no tokens here")

    async def services(self, namespace: str) -> Sequence[Json]:
        return []

    def register_pod(self, pod: Mapping[str, Any]) -> None:
        self.registered.add(pod["metadata"]["uid"])

    def unregister_pod(self, uid: str) -> None:
        self.registered.discard(uid)

    def node(self) -> Json | None:
        return self.node_object

    # ---- inside ----

    def go_away(self, trouble: VkError | None = None) -> None:
        """Answer everything with this error, and end the watches."""
        self.trouble = trouble or Unavailable("the API server is away")
        self._wake()

    def come_back(self) -> None:
        self.trouble = None

    def _object(self, kind: Mapping[tuple[str, str], Json], namespace: str, name: str) -> Json:
        if (namespace, name) not in kind:
            raise NotFound(f"{namespace}/{name} not found")
        return kind[namespace, name]

    def _named(self, path: str) -> Json:
        parts = path.split("/")
        key = (parts[4], parts[6])
        if key not in self.pods:
            raise NotFound(f"pods {parts[6]!r} not found")
        return self.pods[key]

    def _store(self, type_: str, pod: Json) -> None:
        self._version += 1
        pod["metadata"]["resourceVersion"] = str(self._version)
        if type_ != "DELETED":
            self.pods[pod["metadata"]["namespace"], pod["metadata"]["name"]] = pod
        self._log.append((self._version, WatchEvent(type_, copy.deepcopy(pod))))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _turn(self) -> None:
        if self.slow_s:
            await self.clock.sleep(self.slow_s)
        self._check()

    def _check(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    def _now(self, later_s: int = 0) -> str:
        when = datetime.fromtimestamp(self.clock.now_ns() / 1e9 + later_s, UTC)
        return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _merged(old: Json, patch: Json) -> Json:
    """Merge as the API server merges a strategic patch of a status."""
    result = dict(old)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif key in _MERGE_KEYS:
            result[key] = _merged_list(old.get(key) or [], value, _MERGE_KEYS[key])
        else:
            result[key] = copy.deepcopy(value)
    return result


def _merged_list(old: list[Json], patch: list[Json], merge_key: str) -> list[Json]:
    if patch and patch[0].get("$patch") == "replace":
        return copy.deepcopy(patch[1:])
    entries = {entry[merge_key]: dict(entry) for entry in old}
    for entry in patch:
        if entry.get("$patch") == "delete":
            entries.pop(entry[merge_key], None)
            continue
        known = entries.setdefault(entry[merge_key], {})
        for key, value in entry.items():
            if value is None:
                known.pop(key, None)
            else:
                known[key] = value
    return list(entries.values())
