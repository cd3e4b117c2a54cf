"""HTTP probes against real local servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.podspecs import container
from vk_provider.pods.probes.http_check import check_http, make_request
from vk_provider.pods.probes.model import Answer, CheckError

TIMEOUT_S = 30
RELEASED = web.AppKey("released", asyncio.Event)


async def answer(request: web.Request) -> web.StreamResponse:
    match request.path:
        case "/echo":
            return web.json_response(dict(request.headers))
        case "/away":
            raise web.HTTPFound("http://elsewhere.test/")
        case "/near":
            raise web.HTTPFound("/status/200?x=1")
        case "/loop":
            raise web.HTTPFound("/loop")
        case "/not-modified":
            return web.Response(status=304)
        case "/long":
            return web.Response(text="x" * 100_000)
        case "/stall":
            response = web.StreamResponse(headers={"Content-Length": "10"})
            await response.prepare(request)
            await request.app[RELEASED].wait()
            return response
        case path:
            return web.Response(status=int(path.rpartition("/")[2]), text=f"said {path}")


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    released = asyncio.Event()
    app = web.Application()
    app[RELEASED] = released
    app.router.add_get("/{rest:.*}", answer)
    server = TestServer(app)
    async with server:
        yield server
        released.set()


async def check(server: TestServer, path: str, timeout_s: float = TIMEOUT_S, **rest: Any) -> Answer:
    action = {"path": path, "port": server.port} | rest
    return await check_http(action, container(), "127.0.0.1", timeout_s)


@pytest.mark.parametrize("status", [200, 204, 299])
async def test_a_good_status_is_a_success(server: TestServer, status: int) -> None:
    found = await check(server, f"/status/{status}")
    assert found.success
    assert not found.warning


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_a_bad_status_is_a_failure_that_does_not_show_the_body(
    server: TestServer, status: int
) -> None:
    found = await check(server, f"/status/{status}")
    assert found == Answer(False, f"HTTP probe failed with statuscode: {status}")


async def test_redirects_are_followed_on_the_same_host_alone(server: TestServer) -> None:
    assert await check(server, "/near") == Answer(True, "said /status/200")
    away = await check(server, "/away")
    assert away.success
    assert away.warning
    assert away.output.startswith("Probe terminated redirects, Response body: ")
    assert (await check(server, "/not-modified")).warning


async def test_a_redirect_without_end_is_a_failure(server: TestServer) -> None:
    found = await check(server, "/loop")
    assert not found.success
    assert found.output.endswith("stopped after 10 redirects")


async def test_only_the_start_of_a_long_answer_is_read(server: TestServer) -> None:
    assert len((await check(server, "/long")).output) == 10 * 1024


async def test_an_answer_that_does_not_come_is_a_failure(server: TestServer) -> None:
    found = await check(server, "/stall", timeout_s=0.05)
    assert not found.success
    assert "context deadline exceeded" in found.output


async def test_nobody_listening_is_a_failure(server: TestServer) -> None:
    port = server.port
    await server.close()
    action = {"path": "/x", "port": port}
    found = await check_http(action, container(), "127.0.0.1", TIMEOUT_S)
    assert not found.success
    assert found.output.startswith(f'Get "http://127.0.0.1:{port}/x": ')


async def test_https_is_spoken_without_asking_for_a_name(server: TestServer) -> None:
    found = await check(server, "/status/200", scheme="HTTPS")  # the server speaks plain HTTP
    assert not found.success
    assert found.output.startswith('Get "https://')


async def test_the_headers_are_a_kubelets_and_the_pods(server: TestServer) -> None:
    headers = json.loads((await check(server, "/echo")).output)
    assert headers == {
        "Host": f"127.0.0.1:{server.port}",
        "User-Agent": "kube-probe/1.37",
        "Accept": "*/*",
        "Connection": "close",
    }
    given = [
        {"name": "Host", "value": "pod.test"},
        {"name": "user-agent", "value": "mine"},
        {"name": "Accept", "value": ""},
        {"name": "X-Token", "value": "1"},
    ]
    headers = json.loads((await check(server, "/echo", httpHeaders=given)).output)
    assert headers == {
        "Host": "pod.test",
        "User-Agent": "mine",
        "X-Token": "1",
        "Connection": "close",
    }


@pytest.mark.parametrize(
    ("action", "url"),
    [
        ({"port": 80}, "http://10.0.0.1:80/"),
        ({"port": 443, "scheme": "HTTPS", "path": "/a"}, "https://10.0.0.1:443/a"),
        ({"port": "web", "path": "a?b=c%20d#e"}, "http://10.0.0.1:8080/a?b=c%20d"),
        ({"port": 80, "host": "fd00::1", "path": "/x y"}, "http://[fd00::1]:80/x y"),
        ({"port": 80, "path": "http://other:1/p"}, "http://10.0.0.1:80/p"),
        ({"port": 80, "path": "?q=1"}, "http://10.0.0.1:80/?q=1"),
    ],
)
def test_urls(action: Any, url: str) -> None:
    app = container(ports=[{"name": "web", "containerPort": 8080}])
    assert make_request(action, app, "10.0.0.1", "probe").text == url


def test_a_port_that_is_not_there_is_an_error() -> None:
    with pytest.raises(CheckError, match='has no port named "web"'):
        make_request({"port": "web"}, container(), "10.0.0.1", "probe")


@pytest.mark.parametrize("host", ["[", "a b", "x" * 300, "é" * 70 + ".test", "::::"])
async def test_hosts_that_are_none_harm_nobody(host: str) -> None:
    action = {"port": 1, "host": host}
    try:
        assert not (await check_http(action, container(), "127.0.0.1", 5)).success
    except CheckError as exc:
        assert host in str(exc)


@pytest.mark.parametrize("value", ["a\r\nb", "\x00"])
async def test_headers_that_are_none_are_failures(server: TestServer, value: str) -> None:
    headers = [{"name": "X-A", "value": value}]
    assert not (await check(server, "/status/200", httpHeaders=headers)).success
