"""An HTTP server on loopback that answers as a test scripts it, in the API server's place."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass(frozen=True)
class Answer:
    """One answer: a JSON body (or raw bytes), a status and headers."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """A watch: these events, then it stays open until `stay` is set (None: it ends at once)."""

    events: Sequence[dict[str, Any]]
    stay: asyncio.Event | None = None


@dataclass(frozen=True)
class Live:
    """A watch whose events the test puts in as it goes; None ends it."""

    events: asyncio.Queue[dict[str, Any] | None]


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class ApiStub:
    """Answers scripted by method and path, in order; the last one is repeated."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.url = ""
        self._answers: dict[tuple[str, str], deque[Answer | Stream | Live]] = defaultdict(deque)
        self._arrived = asyncio.Condition()

    def on(self, method: str, path: str, *answers: Any) -> None:
        """Script answers; a plain object is a body with status 200. WATCH counts as a method."""
        self._answers[method, path].extend(
            a if isinstance(a, Answer | Stream | Live) else Answer(a) for a in answers
        )

    async def count(self, method: str, path: str, number: int) -> list[Seen]:
        """Return when so many requests of the kind have come."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.of(method, path)) >= number)
        return self.of(method, path)

    def of(self, method: str, path: str) -> list[Seen]:
        """Return the requests of the kind that have come."""
        return [s for s in self.seen if (s.method, s.path) == (method, path)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        method = "WATCH" if request.query.get("watch") == "true" else request.method
        seen = Seen(
            method,
            request.path,
            dict(request.query),
            dict(request.headers),
            orjson.loads(data) if data else None,
        )
        async with self._arrived:
            self.seen.append(seen)
            self._arrived.notify_all()
        queue = self._answers.get((method, request.path))
        if not queue:
            return _refusal(404, "NotFound", f"no {method} {request.path} in this test")
        answer = queue.popleft() if len(queue) > 1 else queue[0]
        if isinstance(answer, Stream):
            return await self._stream(request, answer)
        if isinstance(answer, Live):
            return await self._live(request, answer)
        body = answer.body if isinstance(answer.body, bytes) else orjson.dumps(answer.body)
        return web.Response(body=body, status=answer.status, headers=answer.headers)

    async def _stream(self, request: web.Request, stream: Stream) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in stream.events:
            await response.write(orjson.dumps(event) + b"\n")
        if stream.stay is not None:
            await stream.stay.wait()
        await response.write_eof()
        return response

    async def _live(self, request: web.Request, live: Live) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while (event := await live.events.get()) is not None:
            await response.write(orjson.dumps(event) + b"\n")
        await response.write_eof()
        return response


def status(code: int, reason: str, message: str = "", **details: Any) -> Answer:
    """A refusal as metav1.Status."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message or reason,
        "details": details,
    }
    return Answer(body, code)


def _refusal(code: int, reason: str, message: str) -> web.Response:
    answer = status(code, reason, message)
    return web.Response(body=orjson.dumps(answer.body), status=code)


@asynccontextmanager
async def api_stub() -> AsyncIterator[ApiStub]:
    """Run a stub on a free port of loopback."""
    stub = ApiStub()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", stub.handle)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.01)
    stub.url = str(server.make_url("")).rstrip("/")
    try:
        yield stub
    finally:
        await server.close()


def write_kubeconfig(path: Path, url: str, **user: str) -> Path:
    """Write a kubeconfig for the stub, with the given user entry."""
    document = {
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": user}],
    }
    path.write_bytes(orjson.dumps(document))
    return path
