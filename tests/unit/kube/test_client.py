from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_stub import Answer, ApiStub, Stream, status, write_kubeconfig
from tests.support.fake_clock import FakeClock
from vk_provider.common import errors
from vk_provider.kube.client import KubeClient, WatchEvent
from vk_provider.kube.errors import ApiError, Gone

POD = {"metadata": {"name": "a"}}


async def test_requests_carry_the_token_the_agent_and_typed_parameters(
    api: ApiStub, client: KubeClient
) -> None:
    api.on("GET", "/api/v1/pods", {"items": []})
    await client.list("/api/v1/pods", {"limit": 5, "fieldSelector": "spec.nodeName=a b"})
    (seen,) = api.seen
    assert seen.headers["Authorization"] == "Bearer first"
    assert seen.headers["User-Agent"] == "test/1"
    assert seen.query == {"limit": "5", "fieldSelector": "spec.nodeName=a b"}


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [
        ("merge", "application/merge-patch+json"),
        ("strategic", "application/strategic-merge-patch+json"),
        ("json", "application/json-patch+json"),
    ],
)
async def test_a_patch_says_its_kind(
    api: ApiStub, client: KubeClient, kind: Any, content_type: str
) -> None:
    api.on("PATCH", "/x", POD)
    assert await client.patch("/x", {"a": 1}, kind=kind) == POD
    assert api.seen[0].headers["Content-Type"] == content_type


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (status(400, "BadRequest"), errors.Invalid),
        (status(401, "Unauthorized"), errors.Unauthenticated),
        (status(403, "Forbidden"), errors.PermissionDenied),
        (status(404, "NotFound"), errors.NotFound),
        (status(409, "Conflict"), errors.Conflict),
        (status(409, "AlreadyExists"), errors.AlreadyExists),
        (status(410, "Expired"), Gone),
        (status(422, "Invalid"), errors.Invalid),
        (status(429, "TooManyRequests"), errors.Unavailable),
        (status(500, "InternalError"), errors.Unavailable),
        (status(503, "ServiceUnavailable"), errors.Unavailable),
        (status(504, "Timeout"), errors.DeadlineExceeded),
        (Answer(b"upstream is away", 502), errors.Unavailable),
        (Answer(b"<html>", 200), errors.Internal),
        (Answer([], 200), errors.Internal),
    ],
)
async def test_refusals_are_of_the_common_kinds(
    api: ApiStub, client: KubeClient, answer: Answer, kind: type[Exception]
) -> None:
    api.on("POST", "/x", answer)
    with pytest.raises(kind, match="POST /x"):
        await client.create("/x", {})


async def test_a_refusal_keeps_the_servers_words_and_details(
    api: ApiStub, client: KubeClient
) -> None:
    api.on("GET", "/x", status(404, "NotFound", 'pods "a" not found', kind="pods", name="a"))
    with pytest.raises(ApiError, match='GET /x failed: pods "a" not found') as caught:
        await client.get("/x")
    assert (caught.value.status, caught.value.reason) == (404, "NotFound")
    assert caught.value.details == {"kind": "pods", "name": "a"}


async def test_a_server_that_asks_to_wait_is_asked_again(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    busy = status(429, "TooManyRequests")
    api.on("GET", "/x", Answer(busy.body, 429, {"Retry-After": "3"}), POD)
    async with asyncio.TaskGroup() as tasks:
        request = tasks.create_task(client.get("/x"))
        await api.count("GET", "/x", 1)
        await clock.wait_for_sleeper()
        await clock.advance(2.9)
        assert len(api.seen) == 1
        await clock.advance(0.2)
    assert request.result() == POD


async def test_a_server_that_is_away_is_unavailable(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")
    client = await KubeClient.from_kubeconfig(path, user_agent="test/1")
    with pytest.raises(errors.Unavailable, match=r"GET /x at http://127\.0\.0\.1:1 got no answer"):
        await client.get("/x")
    await client.close()


async def test_changed_credentials_are_used_from_the_next_request_on(
    api: ApiStub, client: KubeClient, tmp_path: Path
) -> None:
    api.on("GET", "/x", POD)
    await client.get("/x")
    write_kubeconfig(tmp_path / "kubeconfig", api.url, token="second-one")
    await client.get("/x")
    assert [s.headers["Authorization"] for s in api.seen] == ["Bearer first", "Bearer second-one"]


async def test_credentials_that_became_unusable_leave_the_old_ones_in_use(
    api: ApiStub, client: KubeClient, tmp_path: Path
) -> None:
    api.on("GET", "/x", POD)
    (tmp_path / "kubeconfig").write_text("cut sho")
    assert await client.get("/x") == POD
    assert api.seen[0].headers["Authorization"] == "Bearer first"
    write_kubeconfig(tmp_path / "kubeconfig", api.url, token="whole-again")
    await client.get("/x")
    assert api.seen[1].headers["Authorization"] == "Bearer whole-again"


async def test_a_watch_goes_on_over_a_change_of_credentials(
    api: ApiStub, client: KubeClient, tmp_path: Path
) -> None:
    stay = asyncio.Event()
    api.on("WATCH", "/x", Stream([{"type": "ADDED", "object": POD}], stay))
    api.on("GET", "/y", POD)
    async with aclosing(client.watch("/x")) as events:
        assert await anext(events) == WatchEvent("ADDED", POD)
        write_kubeconfig(tmp_path / "kubeconfig", api.url, token="second-one")
        await client.get("/y")
        stay.set()
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_a_401_has_the_credentials_read_again(api: ApiStub, client: KubeClient) -> None:
    api.on("GET", "/x", status(401, "Unauthorized"), POD)
    assert await client.get("/x") == POD


async def test_a_watch_yields_long_events_whole(api: ApiStub, client: KubeClient) -> None:
    big = {"data": "x" * 5_000_000}
    api.on("WATCH", "/x", Stream([{"type": "ADDED", "object": big}] * 2))
    async with aclosing(client.watch("/x", {"resourceVersion": "5"})) as events:
        assert [e async for e in events] == [WatchEvent("ADDED", big)] * 2
    assert api.seen[0].query == {"resourceVersion": "5", "watch": "true"}


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}, Gone),
        ({"type": "ERROR", "object": {"code": 410, "reason": "Gone"}}, Gone),
        ({"type": "ERROR", "object": {"code": 500, "reason": "InternalError"}}, errors.Unavailable),
        ({"type": "ADDED"}, errors.Internal),
    ],
)
async def test_a_watch_raises_what_the_server_sends_as_an_event(
    api: ApiStub, client: KubeClient, event: dict[str, Any], kind: type[Exception]
) -> None:
    api.on("WATCH", "/x", Stream([event]))
    with pytest.raises(kind):
        async with aclosing(client.watch("/x")) as events:
            await anext(events)


async def test_a_cancelled_watch_leaves_the_client_usable(api: ApiStub, client: KubeClient) -> None:
    api.on("WATCH", "/x", Stream([], asyncio.Event()))
    api.on("GET", "/y", POD)

    async def follow() -> None:
        async with aclosing(client.watch("/x")) as events:
            async for _ in events:
                pass

    task = asyncio.ensure_future(follow())
    await api.count("WATCH", "/x", 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await client.get("/y") == POD


async def test_a_token_file_may_end_in_a_newline_and_is_read_again(
    api: ApiStub, tmp_path: Path
) -> None:
    api.on("GET", "/x", POD)
    (tmp_path / "token").write_text("abc\n")
    path = write_kubeconfig(tmp_path / "kubeconfig", api.url, tokenFile="token")
    client = await KubeClient.from_kubeconfig(path, user_agent="test/1")
    await client.get("/x")
    (tmp_path / "token").write_text("defg\n")
    await client.get("/x")
    (tmp_path / "token").write_text("a\nb c")
    with pytest.raises(errors.Unauthenticated, match="characters that no token has"):
        await client.get("/x")
    await client.close()
    assert [s.headers["Authorization"] for s in api.seen] == ["Bearer abc", "Bearer defg"]
