"""Writes one pod's status to the API: the newest one only, in order, until it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from vk_provider.common.clock import Clock
from vk_provider.common.errors import Conflict, Invalid, NotFound, VkError
from vk_provider.common.logging import get_logger
from vk_provider.pods.annotations import POD_NOTES
from vk_provider.pods.podspec import Pod, describe, name_of, namespace_of, uid_of
from vk_provider.pods.status.patch import apply_patch, make_patch

_PAUSE_S = (0.2, 3.0)  # first and longest: soon after the server's return, see reflector

log = get_logger("pods.status")


class StatusApi(Protocol):
    """The verbs of the API that a pod's status needs (`vk_provider.kube.client.KubeClient`)."""

    async def patch(self, path: str, body: Any, *, kind: Any = "merge") -> dict[str, Any]:
        """Apply a patch and return the object."""
        ...

    async def delete(self, path: str, *, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Delete an object."""
        ...


class StatusWriter:
    """Holds what the API has and what it should have, and closes the gap while `run` runs."""

    def __init__(self, api: StatusApi, pod: Pod, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._path = f"/api/v1/namespaces/{namespace_of(pod)}/pods/{name_of(pod)}"
        self._uid = uid_of(pod)
        self._name = describe(pod)
        self._version = _version(pod)
        self._wanted: Mapping[str, Any] | None = None
        self._wanted_notes: Mapping[str, str] = {}
        self._held_notes = _notes(pod)
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self.held: dict[str, Any] = dict(pod.get("status") or {})
        """The status that the API is known to have."""
        self.gone = False
        """The object is not there any more, or another one has its name."""

    def seen(self, pod: Pod) -> None:
        """Take the object as the API sent it; older ones than known are passed over."""
        version = _version(pod)
        if version <= self._version:
            return
        self._version = version
        self.held = dict(pod.get("status") or {})
        self._held_notes = _notes(pod)
        self._check()

    def put(self, status: Mapping[str, Any], notes: Mapping[str, str] | None = None) -> None:
        """Say what the status should be, and which annotations of ours go with it."""
        self._wanted = status
        self._wanted_notes = notes or {}
        self._check()

    async def flush(self) -> None:
        """Return once the API shows the newest status, or the pod is gone."""
        await self._settled.wait()

    async def delete(self) -> None:
        """Delete the object for good, if it is still this pod; raises what the API raises."""
        try:
            await self._api.delete(
                self._path,
                body={"gracePeriodSeconds": 0, "preconditions": {"uid": self._uid}},
            )
        except (NotFound, Conflict):
            self.leave()

    async def run(self) -> None:
        """Write until cancelled, or until the pod is gone."""
        pause_s = _PAUSE_S[0]
        while not self.gone:
            await self._news.wait()
            self._news.clear()
            try:
                await self._write()
                pause_s = _PAUSE_S[0]
            except VkError as exc:
                tell = log.warning if pause_s == _PAUSE_S[0] else log.debug  # once an outage
                tell("status not written, trying on", pod=self._name, error=str(exc))
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, _PAUSE_S[1])
                self._news.set()

    async def _write(self) -> None:
        wanted, notes = self._wanted, self._wanted_notes
        patch = self._patch()
        if patch is None or wanted is None:
            self._check()
            return
        try:
            answer = await self._api.patch(f"{self._path}/status", patch, kind="strategic")
        except (NotFound, Conflict):
            self.leave()
            return
        except Invalid as exc:
            # Not ours to repeat: the same patch is refused for ever. The next change may pass.
            log.warning("status refused", pod=self._name, error=str(exc))
            self.held = apply_patch(self.held, wanted)
            self._held_notes |= notes
            self._check()
            return
        if _version(answer) >= self._version:
            self._version = _version(answer)
            # What the server left out of it is not sent again before something else changes.
            self.held = apply_patch(answer.get("status") or {}, wanted)
            self._held_notes |= notes
        self._check()

    def _patch(self) -> dict[str, Any] | None:
        if self._wanted is None:
            return None
        wanted, held = self._wanted_notes.items(), self._held_notes
        notes = {key: text for key, text in wanted if held.get(key) != text}
        return make_patch(self._uid, self.held, self._wanted, notes)

    def _check(self) -> None:
        if not self.gone and self._patch() is not None:
            self._settled.clear()
            self._news.set()
        else:
            self._settled.set()

    def leave(self) -> None:
        """Take note that the object is gone: there is nothing to write any more."""
        self.gone = True
        self._settled.set()
        self._news.set()


def _notes(pod: Mapping[str, Any]) -> dict[str, str]:
    annotations = pod["metadata"].get("annotations") or {}
    return {key: str(annotations[key]) for key in POD_NOTES if key in annotations}


def _version(pod: Mapping[str, Any]) -> int:
    """Return the resourceVersion as a number (comparable since Kubernetes 1.35, KEP-5504)."""
    text = str(pod.get("metadata", {}).get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0
