"""Who is asking: a client certificate, else a bearer token that the API server knows.

As the kubelet with `authentication.anonymous.enabled: false` and a webhook.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vk_provider.common.clock import Clock
from vk_provider.common.errors import Unauthenticated
from vk_provider.kubelet_api.sources import Reviewer
from vk_provider.kubelet_api.ttl_cache import TtlCache

_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_TOKEN_TTL_S = 120.0  # KubeletConfiguration.authentication.webhook.cacheTTL

PeerCertificate = Mapping[str, Any]  # as ssl.SSLSocket.getpeercert() returns it: verified


@dataclass(frozen=True, slots=True)
class User:
    """A name, its groups, and what else the authenticator said."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


def certificate_user(certificate: PeerCertificate | None) -> User | None:
    """Return whom a verified certificate names: the common name, in its organizations."""
    fields = [pair for part in (certificate or {}).get("subject", ()) for pair in part]
    names = [value for key, value in fields if key == "commonName"]
    if not names or not names[0]:
        return None
    groups = tuple(value for key, value in fields if key == "organizationName")
    return User(names[0], (*groups, "system:authenticated"))


class Authenticator:
    """Finds out who sent a request."""

    def __init__(self, reviewer: Reviewer, clock: Clock) -> None:
        self._reviewer = reviewer
        self._known: TtlCache[bytes, User] = TtlCache(clock)

    async def authenticate(
        self, certificate: PeerCertificate | None, authorization: str | None
    ) -> User:
        """Return the user; raises Unauthenticated, or Unavailable where nobody could be asked."""
        user = certificate_user(certificate)
        if user is not None:
            return user
        scheme, _, token = (authorization or "").strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("The request carries neither a client certificate nor a token")
        key = hashlib.sha256(
            token.encode()
        ).digest()  # no token is kept in memory longer than asked
        known = self._known.get(key)
        if known is None:
            known = await self._review(token)
            self._known.put(key, known, _TOKEN_TTL_S)
        return known

    async def _review(self, token: str) -> User:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        status = (await self._reviewer.create(_PATH, review)).get("status") or {}
        user = status.get("user") or {}
        if not status.get("authenticated") or not user.get("username"):
            raise Unauthenticated("The API server does not know the request's token")
        return User(
            name=user["username"],
            groups=tuple(user.get("groups") or ()),
            uid=user.get("uid", ""),
            extra=tuple((key, tuple(values)) for key, values in (user.get("extra") or {}).items()),
        )
