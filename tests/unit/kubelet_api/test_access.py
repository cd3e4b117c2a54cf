from typing import Any

import pytest

from tests.support.fake_clock import FakeClock
from vk_provider.common.errors import Unauthenticated, Unavailable
from vk_provider.kubelet_api.authentication import Authenticator, User, certificate_user
from vk_provider.kubelet_api.authorization import Authorizer, subresources_for, verb_for
from vk_provider.kubelet_api.ttl_cache import TtlCache

ALICE = User("alice", ("dev",))


class Reviews:
    def __init__(self, *statuses: dict[str, Any] | Exception) -> None:
        self.answers = list(statuses)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((path.rpartition("/")[2], body["spec"]))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"status": answer}


KNOWN = {"authenticated": True, "user": {"username": "alice", "groups": ["dev"], "uid": "1"}}


class TestCertificates:
    def test_name_and_organizations(self) -> None:
        subject = (
            (("organizationName", "system:masters"),),
            (("organizationName", "b"),),
            (("commonName", "admin"),),
        )
        assert certificate_user({"subject": subject}) == User(
            "admin", ("system:masters", "b", "system:authenticated")
        )

    @pytest.mark.parametrize("certificate", [None, {}, {"subject": ((("commonName", ""),),)}])
    def test_without_a_name_nobody_is_known(self, certificate: dict[str, Any] | None) -> None:
        assert certificate_user(certificate) is None


class TestTokens:
    async def test_the_server_is_asked_once_in_two_minutes(self) -> None:
        clock, reviews = FakeClock(), Reviews(KNOWN, KNOWN)
        authenticator = Authenticator(reviews, clock)
        for _ in range(3):
            user = await authenticator.authenticate(None, "Bearer t0ken")
            assert user == User("alice", ("dev",), "1")
        assert reviews.asked == [("tokenreviews", {"token": "t0ken"})]
        await clock.advance(120)
        await authenticator.authenticate(None, "bearer t0ken")
        assert len(reviews.asked) == 2

    async def test_a_certificate_makes_the_token_needless(self) -> None:
        reviews = Reviews()
        certificate = {"subject": ((("commonName", "admin"),),)}
        user = await Authenticator(reviews, FakeClock()).authenticate(certificate, "Bearer x")
        assert user.name == "admin"

    @pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer  ", "Basic abc"])
    async def test_no_credentials_are_nobodys(self, header: str | None) -> None:
        with pytest.raises(Unauthenticated):
            await Authenticator(Reviews(), FakeClock()).authenticate(None, header)

    async def test_unknown_tokens_are_asked_about_each_time(self) -> None:
        reviews = Reviews({"authenticated": False}, {})
        authenticator = Authenticator(reviews, FakeClock())
        for _ in range(2):
            with pytest.raises(Unauthenticated):
                await authenticator.authenticate(None, "Bearer guess")
        assert len(reviews.asked) == 2


class TestWhatIsAskedFor:
    @pytest.mark.parametrize(
        ("path", "subresources"),
        [
            ("/pods", ("pods", "proxy")),
            ("/runningpods/", ("pods", "proxy")),
            ("/healthz/{check}", ("healthz", "proxy")),
            ("/configz", ("configz", "proxy")),
            ("/flagz", ("configz",)),
            ("/statusz", ("statusz",)),
            ("/stats/summary", ("stats",)),
            ("/metrics", ("metrics",)),
            ("/metrics/resource", ("metrics",)),
            ("/metricsandmore", ("proxy",)),
            ("/logs/{path}", ("log",)),
            ("/containerLogs/{namespace}/{pod}/{container}", ("proxy",)),
            ("/exec/{namespace}/{pod}/{container}", ("proxy",)),
            ("", ("proxy",)),
        ],
    )
    def test_subresources_in_order(self, path: str, subresources: tuple[str, ...]) -> None:
        assert subresources_for(path) == subresources

    @pytest.mark.parametrize(
        ("method", "path", "verb"),
        [
            ("GET", "/metrics", "get"),
            ("POST", "/stats/summary", "create"),
            ("GET", "/exec/{namespace}/{pod}/{container}", "create"),
            ("GET", "/attach/{namespace}/{pod}/{container}", "create"),
            ("GET", "/portForward/{namespace}/{pod}", "create"),
            ("GET", "/containerLogs/{namespace}/{pod}/{container}", "get"),
            ("TRACE", "/pods", ""),
        ],
    )
    def test_opening_a_stream_is_no_reading(self, method: str, path: str, verb: str) -> None:
        assert verb_for(method, path) == verb


class TestReviews:
    async def test_says_who_wants_what(self) -> None:
        reviews = Reviews({"allowed": True})
        user = User("alice", ("dev",), "7", (("scopes", ("a", "b")),))
        assert await Authorizer(reviews, "n1", FakeClock()).allows(user, "get", "metrics")
        assert reviews.asked == [
            (
                "subjectaccessreviews",
                {
                    "user": "alice",
                    "groups": ["dev"],
                    "uid": "7",
                    "extra": {"scopes": ["a", "b"]},
                    "resourceAttributes": {
                        "verb": "get",
                        "version": "v1",
                        "resource": "nodes",
                        "subresource": "metrics",
                        "name": "n1",
                    },
                },
            )
        ]

    @pytest.mark.parametrize(("allowed", "kept_s"), [(True, 300), (False, 30)])
    async def test_answers_are_kept_for_their_time(self, allowed: bool, kept_s: int) -> None:
        clock, reviews = FakeClock(), Reviews({"allowed": allowed}, {"allowed": allowed})
        authorizer = Authorizer(reviews, "n", clock)
        assert await authorizer.allows(ALICE, "get", "stats") is allowed
        await clock.advance(kept_s - 1)
        assert await authorizer.allows(ALICE, "get", "stats") is allowed
        assert len(reviews.asked) == 1
        await clock.advance(1)
        await authorizer.allows(ALICE, "get", "stats")
        assert len(reviews.asked) == 2

    async def test_a_denial_outranks_and_failures_are_not_kept(self) -> None:
        reviews = Reviews(Unavailable("away"), {"allowed": True, "denied": True})
        authorizer = Authorizer(reviews, "n", FakeClock())
        with pytest.raises(Unavailable):
            await authorizer.allows(ALICE, "get", "stats")
        assert not await authorizer.allows(ALICE, "get", "stats")


def test_the_cache_is_bounded_by_use() -> None:
    cache: TtlCache[str, int] = TtlCache(FakeClock(), size=2)
    for name in ("a", "b"):
        cache.put(name, 1, 10)
    cache.get("a")
    cache.put("c", 1, 10)
    assert [cache.get(name) for name in ("a", "b", "c")] == [1, None, 1]
