"""Keeps somebody's picture of a set of objects the same as the API server's (client-go's name)."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any, Protocol

from vk_provider.common.clock import Clock
from vk_provider.common.errors import PermissionDenied, Unavailable, VkError
from vk_provider.common.logging import get_logger
from vk_provider.kube.client import KubeClient, Object, Params
from vk_provider.kube.errors import ApiError, Gone

_PAGE = 500
# The server ends a watch after this; spread, so that watches begun together don't end together.
_WATCH_S = (300, 600)
_BACKOFF_S = (0.2, 3.0)  # first and longest pause: right within 10 s of the server's return

log = get_logger("kube.reflector")


class ReflectorHandler(Protocol):
    """Takes what changed. Calls are synchronous, in the server's order, and never overlap."""

    def replace(self, objects: list[Object]) -> None:
        """Take the whole set; what is not in it does not exist."""
        ...

    def upsert(self, obj: Object) -> None:
        """Take one object that is new or has changed."""
        ...

    def delete(self, obj: Object) -> None:
        """Take leave of one object; `obj` is its last state."""
        ...


class Reflector:
    """Lists, then watches, for as long as it runs.

    Watches resume from the last resourceVersion seen (bookmarks included); after 410 it lists
    again and hands on a `replace`. Other failures are repeated with growing, jittered pauses.
    """

    def __init__(
        self,
        client: KubeClient,
        path: str,
        params: Params | None,
        handler: ReflectorHandler,
        clock: Clock,
        *,
        on_failure: Callable[[VkError], None] | None = None,
    ) -> None:
        """`path` is a collection such as /api/v1/pods, `params` its selectors.

        `on_failure` is told each time why the picture can't be refreshed.
        """
        self._client = client
        self._path = path
        self._params = dict(params or {})
        self._handler = handler
        self._clock = clock
        self._on_failure = on_failure
        self._resource_version = ""
        self._pause_s = _BACKOFF_S[0]
        self._failures = 0

    async def run(self) -> None:
        """Reflect until cancelled."""
        while True:
            try:
                if not self._resource_version:
                    await self._list()
                await self._follow()
            except Gone:
                log.info("too far behind, listing again", path=self._path)
                self._resource_version = ""
                await self._clock.sleep(_jittered(_BACKOFF_S[0]))
            except VkError as exc:
                # A refusal of a watch (not a loss of it) may be about the resourceVersion.
                if isinstance(exc, ApiError) and not isinstance(exc, Unavailable):
                    self._resource_version = ""
                self._tell(exc)
                if self._on_failure is not None:
                    self._on_failure(exc)
                await self._clock.sleep(_jittered(self._pause_s))
                self._pause_s = min(self._pause_s * 2, _BACKOFF_S[1])

    async def _follow(self) -> None:
        while True:
            began = self._clock.monotonic()
            await self._watch()
            self._works()
            if (
                self._clock.monotonic() - began < 1.0
            ):  # no busy loop when the server ends it at once
                await self._clock.sleep(_jittered(_BACKOFF_S[0]))

    async def _list(self) -> None:
        objects: list[Object] = []
        params: dict[str, Any] = {**self._params, "limit": _PAGE}
        while True:
            page = await self._client.list(self._path, params)
            # Items of a list carry neither kind nor apiVersion; those of a watch do.
            item = {
                "kind": str(page.get("kind", "")).removesuffix("List"),
                "apiVersion": page.get("apiVersion", ""),
            }
            objects += [{**item, **each} for each in page.get("items") or ()]
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                break
            params["continue"] = metadata["continue"]
        self._resource_version = str(metadata.get("resourceVersion") or "")
        self._handler.replace(objects)

    async def _watch(self) -> None:
        params = {
            **self._params,
            "resourceVersion": self._resource_version,
            "allowWatchBookmarks": True,
            "timeoutSeconds": random.randint(*_WATCH_S),
        }
        async with contextlib.aclosing(self._client.watch(self._path, params)) as events:
            async for event in events:
                self._works()
                version = (event.object.get("metadata") or {}).get("resourceVersion")
                if event.type in {"ADDED", "MODIFIED"}:
                    self._handler.upsert(event.object)
                elif event.type == "DELETED":
                    self._handler.delete(event.object)
                elif event.type != "BOOKMARK":
                    log.warning("unknown kind of event", path=self._path, type=event.type)
                if version:
                    self._resource_version = version

    def _tell(self, error: VkError) -> None:
        """Warn once for an outage, not with each attempt.

        A first refusal is no outage yet: the server may not know that a new pod is this node's.
        """
        self._failures += 1
        told = 2 if isinstance(error, PermissionDenied) else 1
        tell = log.warning if self._failures == told else log.debug
        tell("can't follow, trying on", path=self._path, error=str(error))

    def _works(self) -> None:
        self._pause_s = _BACKOFF_S[0]
        if self._failures > 1:
            log.info("following again", path=self._path)
        self._failures = 0


def _jittered(seconds: float) -> float:
    return seconds * (0.5 + random.random() / 2)
