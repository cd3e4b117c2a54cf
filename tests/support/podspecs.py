"""Pods and objects as the API server sends them, for tests of spec translation."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vk_provider.common.errors import NotFound

Json = dict[str, Any]


def container(name: str = "app", **fields: Any) -> Json:
    """A container with the fields that the API server always fills in."""
    return {"name": name, "image": "busybox:1", "terminationMessagePath": "/dev/term"} | fields


def resources(requests: Json | None = None, limits: Json | None = None) -> Json:
    """A container's resources; limits become requests where none are given."""
    found: Json = {}
    if limits:
        found["limits"] = limits
    if requests or limits:
        found["requests"] = dict(limits or {}) | (requests or {})
    return found


def make_pod(
    *containers: Json,
    name: str = "web",
    namespace: str = "shop",
    uid: str = "u-1",
    labels: Json | None = None,
    annotations: Json | None = None,
    owners: Sequence[Json] = (),
    **spec: Any,
) -> Json:
    """A pod; keyword arguments are fields of its spec."""
    metadata: Json = {"name": name, "namespace": namespace, "uid": uid}
    if labels:
        metadata["labels"] = labels
    if annotations:
        metadata["annotations"] = annotations
    if owners:
        metadata["ownerReferences"] = list(owners)
    return {
        "metadata": metadata,
        "spec": {
            "containers": list(containers) or [container()],
            "serviceAccountName": "default",
        }
        | spec,
        "status": {},
    }


@dataclass(frozen=True)
class FakeToken:
    token: str
    expires_at_ns: int = 0
    refresh_at_ns: int = 0


class FakeObjects:
    """The cluster's objects, by (namespace, name)."""

    def __init__(self) -> None:
        self.config_maps: dict[tuple[str, str], Json] = {}
        self.secrets: dict[tuple[str, str], Json] = {}
        self.token = FakeToken("token-1")
        self.token_calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def put_config_map(self, name: str, data: Mapping[str, str], **rest: Any) -> None:
        self.config_maps["shop", name] = {"metadata": {"name": name}, "data": dict(data)} | rest

    def put_secret(self, name: str, data: Mapping[str, bytes]) -> None:
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        self.secrets["shop", name] = {"metadata": {"name": name}, "data": encoded}

    async def config_map(self, namespace: str, name: str) -> Json:
        return self._get(self.config_maps, namespace, name)

    async def secret(self, namespace: str, name: str) -> Json:
        return self._get(self.secrets, namespace, name)

    async def service_account_token(
        self,
        namespace: str,
        service_account: str,
        audiences: Sequence[str],
        expiration_s: int,
        pod: Mapping[str, Any],
    ) -> FakeToken:
        if self.error is not None:
            raise self.error
        self.token_calls.append((namespace, service_account, list(audiences), expiration_s))
        return self.token

    def _get(self, where: dict[tuple[str, str], Json], namespace: str, name: str) -> Json:
        if self.error is not None:
            raise self.error
        if (namespace, name) not in where:
            raise NotFound(f"{namespace}/{name} is not there")
        return where[namespace, name]
