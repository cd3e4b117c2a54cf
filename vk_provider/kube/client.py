"""The API server as verbs on paths: JSON in, JSON out, errors of the common kinds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import orjson

from vk_provider.common.clock import Clock, SystemClock
from vk_provider.common.errors import FailedPrecondition, Unavailable, VkError
from vk_provider.common.logging import get_logger
from vk_provider.kube.connection import (
    Connection,
    Opener,
    in_cluster_opener,
    keep_alive,
    kubeconfig_opener,
)
from vk_provider.kube.errors import ApiError, ApiInternal, Gone, from_status
from vk_provider.kube.kubeconfig import Kubeconfig, read_kubeconfig

Object = dict[str, Any]
Params = Mapping[str, str | int | bool]
PatchKind = Literal["merge", "strategic", "json"]

_PATCH_TYPES: dict[PatchKind, str] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}
_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10)
_ANSWER_LIMIT_S = 30.0  # for a watch's head; its body may stay quiet for minutes
_MAX_RETRIES = 10  # client-go rest.Request: that many, and only where the server says Retry-After
_MAX_RETRY_AFTER_S = 30.0

log = get_logger("kube.client")


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event of a watch: type ADDED, MODIFIED, DELETED or BOOKMARK, and the object."""

    type: str
    object: Object


class KubeClient:
    """Speaks to one API server as one identity, without limiting its own rate.

    Credentials that change on disk (a rotated certificate, a new token) are picked up with the
    next request. A request that the server asks to repeat later (429, or 5xx with Retry-After)
    is repeated ten times at most. Everything else is the caller's to repeat.
    """

    def __init__(self, opener: Opener, *, user_agent: str, clock: Clock | None = None) -> None:
        self._opener = opener
        self._user_agent = user_agent
        self._clock = clock or SystemClock()
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()

    @classmethod
    async def from_kubeconfig(
        cls, path: str | Path, *, user_agent: str, clock: Clock | None = None
    ) -> KubeClient:
        """Return a client for the current context of the file.

        Raises Invalid when the file can't be used; the server is not asked yet. The caller owns
        the client and closes it.
        """
        return await cls.from_config(
            lambda: read_kubeconfig(path), user_agent=user_agent, clock=clock
        )

    @classmethod
    async def from_config(
        cls, load: Callable[[], Kubeconfig], *, user_agent: str, clock: Clock | None = None
    ) -> KubeClient:
        """As `from_kubeconfig`, of what `load` returns; it is called again after a change."""
        client = cls(kubeconfig_opener(load), user_agent=user_agent, clock=clock)
        await client._current()
        return client

    @classmethod
    async def in_cluster(cls, *, user_agent: str, clock: Clock | None = None) -> KubeClient:
        """Return a client with the service account of the pod that this process runs in."""
        client = cls(in_cluster_opener(), user_agent=user_agent, clock=clock)
        await client._current()
        return client

    @property
    def host(self) -> str:
        """The API server's URL, "" before the first connection."""
        return self._connection.host if self._connection else ""

    async def close(self) -> None:
        """End all requests and watches, and forget the credentials."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def get(self, path: str, params: Params | None = None) -> Object:
        """Return an object."""
        return await self._request("GET", path, params=params)

    async def list(self, path: str, params: Params | None = None) -> Object:
        """Return a list object: `items`, and `metadata.resourceVersion` to watch from."""
        return await self._request("GET", path, params=params)

    async def create(self, path: str, body: Object, params: Params | None = None) -> Object:
        """POST `body` to a collection (or a subresource such as `…/eviction`)."""
        return await self._request("POST", path, body=body, params=params)

    async def update(self, path: str, body: Object) -> Object:
        """PUT the whole object; raises Conflict when its resourceVersion is not the newest."""
        return await self._request("PUT", path, body=body)

    async def patch(
        self, path: str, body: Any, *, kind: PatchKind = "merge", params: Params | None = None
    ) -> Object:
        """Apply a patch; `body` is a list of operations for kind "json", else an object."""
        return await self._request(
            "PATCH", path, body=body, params=params, content_type=_PATCH_TYPES[kind]
        )

    async def delete(self, path: str, *, body: Object | None = None) -> Object:
        """Delete an object; `body` are DeleteOptions (gracePeriodSeconds, preconditions.uid…)."""
        return await self._request("DELETE", path, body=body)

    async def head(self, path: str) -> Mapping[str, str]:
        """Return the headers of a GET's answer (case does not matter in their names)."""
        async with self._opened("GET", path, None, None, "", _TIMEOUT) as response:
            return response.headers

    async def watch(
        self, path: str, params: Params | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield the events of one watch request until the server ends it.

        Give `resourceVersion`, `timeoutSeconds` and `allowWatchBookmarks` in `params`. Ends
        normally when the server's time is over; raises Gone when the resourceVersion is no longer
        kept, Unavailable when the connection is lost, else as any request. Close it
        (`contextlib.aclosing`) to end the request early.
        """
        tried = f"Watching {path}"
        query = {**(params or {}), "watch": True}
        async with self._opened("GET", path, query, None, "", _WATCH_TIMEOUT) as response:
            keep_alive(response)
            try:
                async for line in _lines(response):
                    yield _event(tried, line)
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                raise Unavailable(f"{tried} broke off: {_words(exc)}") from exc

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        data = None if body is None else orjson.dumps(body)
        reloaded = False
        attempt = 0
        while True:
            try:
                async with self._opened(
                    method, path, params, data, content_type, _TIMEOUT
                ) as response:
                    return _parsed(f"{method} {path}", await _read(method, path, response))
            except ApiError as exc:
                if exc.status == 401 and not reloaded:
                    reloaded = True
                    await self._reload()
                    continue
                attempt += 1
                if exc.retry_after_s is None or attempt > _MAX_RETRIES:
                    raise
                log.debug("the server asks to wait", path=path, seconds=exc.retry_after_s)
                await self._clock.sleep(min(exc.retry_after_s, _MAX_RETRY_AFTER_S))

    @contextlib.asynccontextmanager
    async def _opened(
        self,
        method: str,
        path: str,
        params: Params | None,
        data: bytes | None,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield the answer once its head says success."""
        tried = f"{method} {path}"
        async with await self._current() as connection:
            headers = {"Accept": "application/json", "User-Agent": self._user_agent}
            if data is not None:
                headers["Content-Type"] = content_type
            if authorization := await connection.authorization():
                headers["Authorization"] = authorization
            try:
                async with asyncio.timeout(_ANSWER_LIMIT_S + (_TIMEOUT.total or 0)):
                    response = await connection.session.request(
                        method,
                        f"{connection.host}{path}",
                        params=_query(params),
                        data=data,
                        headers=headers,
                        timeout=timeout,
                        allow_redirects=False,
                        proxy=connection.proxy,
                        server_hostname=connection.server_hostname,
                    )
            except aiohttp.ClientConnectorCertificateError as exc:
                raise FailedPrecondition(
                    f"{tried} was not sent: the certificate of {connection.host} was not issued by "
                    f"the authority that the kubeconfig names ({exc.certificate_error})"
                ) from exc
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                raise Unavailable(
                    f"{tried} at {connection.host} got no answer: {_words(exc)}"
                ) from exc
            async with response:
                if not 200 <= response.status < 300:
                    raise from_status(
                        tried,
                        response.status,
                        _status(await _read(method, path, response)),
                        _retry_after(response),
                    )
                yield response

    async def _current(self) -> Connection:
        if self._connection is None or self._connection.outdated():
            await self._reload()
        assert self._connection is not None
        return self._connection

    async def _reload(self) -> None:
        """Connect with what the files say now; where they are unusable, keep the old connection."""
        before = self._connection
        async with self._opening:
            if self._connection is not before:
                return
            try:
                self._connection = await self._opener()
            except VkError as exc:
                if before is None:
                    raise
                log.warning("credentials changed, but the new ones can't be used", error=str(exc))
                before.put_up_with_files()  # until they change again
                return
        if before is not None:
            log.info("credentials read again", host=self.host)
            await before.retire()


async def _read(method: str, path: str, response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise Unavailable(f"{method} {path}: the answer broke off: {_words(exc)}") from exc


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the lines of a body of any length; aiohttp's readline refuses long ones."""
    parts: list[bytes] = []
    async for chunk in response.content.iter_any():
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            parts.append(line)
            if whole := b"".join(parts):
                yield whole
            parts = []
        if rest:
            parts.append(rest)


def _event(tried: str, line: bytes) -> WatchEvent:
    event = _parsed(tried, line)
    body = event.get("object")
    if not isinstance(body, dict):
        raise ApiInternal(f"{tried} failed: an event without an object came")
    kind = str(event.get("type"))
    if kind != "ERROR":
        return WatchEvent(kind, body)
    error = from_status(tried, int(body.get("code") or 500), body)
    if body.get("code") == 410 or body.get("reason") in {"Gone", "Expired"}:
        raise Gone(str(error), status=410, reason=error.reason, details=error.details)
    raise error


def _parsed(tried: str, data: bytes) -> Object:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise ApiInternal(f"{tried} was answered with something that is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise ApiInternal(f"{tried} was answered with JSON that is not an object")
    return value


def _status(data: bytes) -> Object:
    """Return the metav1.Status in a refusal; proxies and webhooks may answer with plain text."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, dict):
        return value
    text = data[:512].decode(errors="replace").strip()
    return {"message": text} if text else {}


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("Retry-After", "")
    if not value.isdigit() or (response.status != 429 and response.status < 500):
        return None
    return float(value)


def _query(params: Params | None) -> dict[str, str] | None:
    if not params:
        return None
    return {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in params.items()}


def _words(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
