"""What this room asks of the cluster's objects: the seam that `vk_provider.kube` fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Json = Mapping[str, Any]


class Token(Protocol):
    """A bound service-account token."""

    @property
    def token(self) -> str:
        """The token itself: a secret."""
        ...

    @property
    def refresh_at_ns(self) -> int:
        """When to ask for the next one (80 % of its life, a day at most), wall time."""
        ...


class Objects(Protocol):
    """Reads objects that this node's pods refer to; errors are kinds of common.errors."""

    async def config_map(self, namespace: str, name: str) -> Json:
        """Return a ConfigMap; not there: NotFound."""
        ...

    async def secret(self, namespace: str, name: str) -> Json:
        """Return a Secret; not there: NotFound."""
        ...

    async def service_account_token(
        self,
        namespace: str,
        service_account: str,
        audiences: Sequence[str],
        expiration_s: int,
        pod: Json,
    ) -> Token:
        """Return a token bound to the pod, the same one until its `refresh_at_ns`."""
        ...
