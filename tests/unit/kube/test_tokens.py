from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.api_stub import ApiStub, status
from tests.support.fake_clock import FakeClock
from vk_provider.common.errors import Internal, NotFound, Unavailable
from vk_provider.kube.client import KubeClient
from vk_provider.kube.tokens import TokenSource

PATH = "/api/v1/namespaces/ns/serviceaccounts/default/token"
POD = {"metadata": {"name": "p", "uid": "u"}}


def granted(clock: FakeClock, token: str, seconds: int = 3600) -> dict[str, Any]:
    expires = datetime.fromtimestamp(clock.now_ns() // 10**9 + seconds, UTC)
    return {
        "spec": {"expirationSeconds": seconds},
        "status": {"token": token, "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ")},
    }


async def ask(tokens: TokenSource) -> str:
    return (await tokens.token("ns", "default", ["aud"], 3600, POD)).token


async def test_a_token_is_bound_to_its_pod_and_kept(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("POST", PATH, granted(clock, "one"))
    tokens = TokenSource(client, clock)
    assert [await ask(tokens), await ask(tokens)] == ["one", "one"]
    (seen,) = api.seen
    assert seen.body["spec"] == {
        "audiences": ["aud"],
        "expirationSeconds": 3600,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"},
    }
    tokens.forget_pod("u")
    await ask(tokens)
    assert len(api.seen) == 2


async def test_a_token_is_renewed_after_four_fifths_of_its_life(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("POST", PATH, granted(clock, "one"))
    tokens = TokenSource(client, clock)
    first = await tokens.token("ns", "default", ["aud"], 3600, POD)
    seconds = (first.refresh_at_ns - clock.now_ns()) / 1e9
    assert 2870 <= seconds <= 2880
    await clock.advance(2881)
    api.on("POST", PATH, granted(clock, "two"))
    api._answers["POST", PATH].popleft()
    assert await ask(tokens) == "two"


async def test_an_old_token_serves_until_its_end_when_the_server_is_away(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("POST", PATH, granted(clock, "one"), status(503, "ServiceUnavailable"))
    tokens = TokenSource(client, clock)
    await ask(tokens)
    await clock.advance(3000)
    assert await ask(tokens) == "one"
    await clock.advance(700)
    with pytest.raises(Unavailable):
        await ask(tokens)


async def test_a_long_life_is_renewed_after_a_day(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("POST", PATH, granted(clock, "one", 365 * 86400))
    token = await TokenSource(client, clock).token("ns", "default", [], 365 * 86400, POD)
    assert 86390 <= (token.refresh_at_ns - clock.now_ns()) / 1e9 <= 86400


@pytest.mark.parametrize("kind", ["pod", "pods"])
async def test_a_pod_that_the_server_has_not_heard_of_yet_is_waited_for(
    api: ApiStub, client: KubeClient, clock: FakeClock, kind: str
) -> None:
    unknown = status(404, "NotFound", f'{kind} "p" not found', kind=kind, name="p")
    api.on("POST", PATH, unknown, unknown, granted(clock, "one"))

    async def time() -> None:
        while True:
            await clock.wait_for_sleeper()
            await clock.advance(1)

    passing = asyncio.ensure_future(time())
    assert await ask(TokenSource(client, clock)) == "one"
    passing.cancel()


async def test_a_service_account_that_is_not_there_is_not_waited_for(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("POST", PATH, status(404, "NotFound", kind="serviceaccounts", name="default"))
    with pytest.raises(NotFound):
        await ask(TokenSource(client, clock))


async def test_an_answer_without_a_token_is_a_breach(
    api: ApiStub, client: KubeClient, clock: FakeClock
) -> None:
    api.on("POST", PATH, {"status": {}})
    with pytest.raises(Internal):
        await ask(TokenSource(client, clock))


def test_a_token_does_not_show_itself() -> None:
    from vk_provider.kube.tokens import Token

    assert "secret" not in repr(Token("secret", 1, 1))
