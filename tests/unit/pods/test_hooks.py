"""Lifecycle hooks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.fake_clock import FakeClock
from tests.support.fake_exec import FakeExec
from tests.support.podspecs import container, make_pod
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Unavailable
from vk_provider.pods.errors import HookError
from vk_provider.pods.hooks import run_hook


async def run(
    handler: Any,
    *,
    fake: FakeExec | None = None,
    clock: FakeClock | None = None,
    timeout_s: float | None = 30,
) -> None:
    await run_hook(
        (fake or FakeExec()).runtime,
        make_pod(),
        container(),
        "c1",
        handler,
        pod_ip="127.0.0.1",
        timeout_s=timeout_s,
        clock=clock or FakeClock(),
    )


async def test_a_command_is_run_as_it_stands() -> None:
    fake = FakeExec()
    await run({"exec": {"command": ["sh", "-c", "$(A)"]}}, fake=fake)
    assert fake.commands == [["sh", "-c", "$(A)"]]


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (pb.ExecExit(code=3), "command 'sh -c x' exited with 3, message: \"said\\n\""),
        (pb.ExecExit(code=127, error="no sh"), 'no sh, message: "said\\n"'),
        (Unavailable("away"), 'away, message: ""'),
    ],
)
async def test_a_failed_command_is_told_with_its_output(outcome: Any, reason: str) -> None:
    fake = FakeExec()
    fake.outcomes, fake.stdout = [outcome], b"said\n"
    with pytest.raises(HookError) as failure:
        await run({"exec": {"command": ["sh", "-c", "x"]}}, fake=fake)
    assert str(failure.value) == (
        'Exec lifecycle hook ([sh -c x]) for Container "app" in Pod "web_shop(u-1)" failed - '
        f"error: {reason}"
    )


async def test_a_sleep_takes_its_time() -> None:
    clock = FakeClock()
    async with asyncio.TaskGroup() as group:
        hook = group.create_task(run({"sleep": {"seconds": 5}}, clock=clock), name="hook")
        await clock.advance(4)
        assert not hook.done()
        await clock.advance(2)
        assert hook.done()


@pytest.fixture
async def server() -> AsyncIterator[tuple[TestServer, list[Any]]]:
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("User-Agent"), dict(request.headers)))
        return web.Response(status=500)

    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    server = TestServer(app)
    async with server:
        yield server, seen


async def test_any_answer_to_a_request_is_a_success(
    server: tuple[TestServer, list[Any]],
) -> None:
    await run({"httpGet": {"path": "/stop", "port": server[0].port}})
    assert server[1][0][:2] == ("/stop", "kube-lifecycle/1.37")


async def test_a_server_without_tls_is_asked_again_without_secrets(
    server: tuple[TestServer, list[Any]],
) -> None:
    headers = [{"name": "Authorization", "value": "x"}, {"name": "X-A", "value": "1"}]
    await run({"httpGet": {"port": server[0].port, "scheme": "HTTPS", "httpHeaders": headers}})
    (_, _, sent) = server[1][0]
    assert "Authorization" not in sent
    assert sent["X-A"] == "1"


@pytest.mark.parametrize(
    ("action", "reason"),
    [({"port": 1}, "Cannot connect"), ({"port": "web"}, 'has no port named "web"')],
)
async def test_a_failed_request_is_told(action: Any, reason: str) -> None:
    with pytest.raises(HookError, match=reason) as failure:
        await run({"httpGet": {"path": "/stop"} | action})
    assert str(failure.value).startswith('HTTP lifecycle hook (/stop) for Container "app" in Pod')


@pytest.mark.parametrize("handler", [{}, {"tcpSocket": {"port": 1}}])
async def test_what_is_no_hook_is_told(handler: Any) -> None:
    with pytest.raises(HookError, match="Cannot run handler"):
        await run(handler)
