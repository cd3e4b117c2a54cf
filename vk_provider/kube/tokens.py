"""Service-account tokens bound to pods (kubelet pkg/kubelet/token)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from vk_provider.common.clock import Clock
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger
from vk_provider.kube.client import KubeClient, Object
from vk_provider.kube.errors import ApiInternal
from vk_provider.kube.patience import patiently

_S = 1_000_000_000
_MAX_AGE_NS = 24 * 3600 * _S
_MAX_JITTER_S = 10

log = get_logger("kube.tokens")


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token; ask again at `refresh_at_ns` (80 % of its life, or after a day)."""

    token: str = field(repr=False)
    expires_at_ns: int
    refresh_at_ns: int


_Key = tuple[str, str, str, tuple[str, ...], int]


class TokenSource:
    """Fetches tokens by TokenRequest, keeps them, and renews them when they are asked for late."""

    def __init__(self, client: KubeClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._tokens: dict[_Key, Token] = {}

    async def token(
        self,
        namespace: str,
        service_account: str,
        audiences: Sequence[str],
        expiration_s: int,
        pod: Mapping[str, Any],
    ) -> Token:
        """Return a token bound to `pod` (its metadata is read).

        When a renewal fails and the old token still holds, that one is returned; else the error
        of the request is raised: NotFound for a service account that is not there, and so on.
        """
        metadata = pod["metadata"]
        key = (namespace, service_account, metadata["uid"], tuple(audiences), expiration_s)
        now = self._clock.now_ns()
        held = self._tokens.get(key)
        if held is not None and now < held.refresh_at_ns:
            return held
        try:
            token = await self._request(key, metadata["name"])
        except VkError as exc:
            if held is None or now >= held.expires_at_ns:
                raise
            log.warning(
                "token not renewed, the old one still holds",
                namespace=namespace,
                service_account=service_account,
                error=str(exc),
            )
            return held
        self._tokens[key] = token
        return token

    def forget_pod(self, uid: str) -> None:
        """Drop the tokens of a pod that is gone."""
        self._tokens = {k: t for k, t in self._tokens.items() if k[2] != uid}

    async def _request(self, key: _Key, pod_name: str) -> Token:
        namespace, service_account, uid, audiences, expiration_s = key
        body: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": list(audiences),
                "expirationSeconds": expiration_s,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": pod_name,
                    "uid": uid,
                },
            },
        }
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        answer = await patiently(self._clock, lambda: self._client.create(path, body))
        try:
            status = answer["status"]
            expires = datetime.fromisoformat(status["expirationTimestamp"])
            expires_at_ns = round(expires.timestamp()) * _S
            # The server may have granted another lifetime than was asked for.
            life_ns = int(answer["spec"]["expirationSeconds"]) * _S
            value = str(status["token"])
        except (KeyError, TypeError, ValueError) as exc:
            raise ApiInternal(f"POST {path} was answered without a token: {exc!r}") from exc
        jitter_ns = round(random.random() * _MAX_JITTER_S * _S)
        refresh_at_ns = min(expires_at_ns - life_ns // 5, expires_at_ns - life_ns + _MAX_AGE_NS)
        return Token(value, expires_at_ns, refresh_at_ns - jitter_ns)
