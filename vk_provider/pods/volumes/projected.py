"""Projected volumes: several sources in one tree (pkg/volume/projected)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from vk_provider.common.errors import Invalid, VkError
from vk_provider.pods.errors import VolumeError
from vk_provider.pods.lookups import Lookup, config_map_data, secret_data
from vk_provider.pods.objects import Objects
from vk_provider.pods.podspec import Pod, namespace_of, pod_security
from vk_provider.pods.volumes.files import (
    FileDefaults,
    Payload,
    by_path,
    common_user,
    downward_files,
    keyed_files,
    make_file,
)

T = TypeVar("T")

_TOKEN_LIFE_S = 3600
_PRIVATE_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Filled:
    """Files, and when the shortest-lived of them is due for renewal (wall time, None: never)."""

    payload: Payload
    renew_at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """What files are made from: the pod, the cluster's objects, the node's allocatable."""

    pod: Pod
    objects: Objects
    lookup: Lookup
    allocatable: Mapping[str, str]

    async def config_map(self, source: Mapping[str, Any], defaults: FileDefaults) -> Payload:
        """Return the files of a ConfigMap; `source` names it by `name`."""
        optional = bool(source.get("optional"))
        found = await self.lookup.config_map(source.get("name", ""), optional=optional)
        data = _data(config_map_data, found)
        missing = "configmap references non-existent config key"
        return keyed_files(data, source, defaults, missing)

    async def secret(self, source: Mapping[str, Any], defaults: FileDefaults) -> Payload:
        """Return the files of a Secret, named by `secretName`, or `name` in projections."""
        name = source.get("secretName") or source.get("name", "")
        found = await self.lookup.secret(name, optional=bool(source.get("optional")))
        data = _data(secret_data, found)
        return keyed_files(data, source, defaults, "references non-existent secret key")

    def downward(self, source: Mapping[str, Any], defaults: FileDefaults) -> Payload:
        """Return the files of fields of the pod."""
        return downward_files(self.pod, source, defaults, self.allocatable)


async def projected_files(volume: Mapping[str, Any], sources: Sources) -> Filled:
    """Return the files of all sources, later ones over earlier ones.

    Raises VolumeError with every source's failure, so that one event tells all.
    """
    defaults = FileDefaults.of(volume)
    every = [_one(source, defaults, sources) for source in volume.get("sources") or ()]
    filled, failures = await together(every)
    if failures:
        raise VolumeError(failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]")
    payload: Payload = {}
    for one in filled:
        payload |= one.payload
    renewals = [one.renew_at_ns for one in filled if one.renew_at_ns is not None]
    return Filled(payload, min(renewals, default=None))


async def together(parts: Iterable[Coroutine[Any, Any, T]]) -> tuple[list[T], list[str]]:
    """Await all side by side; return what they return, in order, and the VolumeErrors' texts."""

    async def attempt(part: Coroutine[Any, Any, T]) -> tuple[T] | VolumeError:
        try:
            return (await part,)
        except VolumeError as exc:
            return exc

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt(part), name="volumes/fill") for part in parts]
    outcomes = [task.result() for task in tasks]
    return (
        [found[0] for found in outcomes if isinstance(found, tuple)],
        [str(found) for found in outcomes if isinstance(found, VolumeError)],
    )


async def _one(source: Mapping[str, Any], defaults: FileDefaults, sources: Sources) -> Filled:
    if (config_map := source.get("configMap")) is not None:
        return Filled(await sources.config_map(config_map, defaults))
    if (secret := source.get("secret")) is not None:
        return Filled(await sources.secret(secret, defaults))
    if (downward := source.get("downwardAPI")) is not None:
        return Filled(sources.downward(downward, defaults))
    if (token := source.get("serviceAccountToken")) is not None:
        return await _token(token, defaults, sources)
    raise VolumeError(f"projected source {', '.join(source)} is not supported by this node")


async def _token(source: Mapping[str, Any], defaults: FileDefaults, sources: Sources) -> Filled:
    pod = sources.pod
    audience = source.get("audience") or ""
    try:
        token = await sources.objects.service_account_token(
            namespace_of(pod),
            pod["spec"].get("serviceAccountName") or "default",
            [audience] if audience else [],
            int(source.get("expirationSeconds") or _TOKEN_LIFE_S),
            pod,
        )
    except VkError as exc:
        raise VolumeError(f"failed to fetch token: {exc}") from exc
    user = source.get("user")
    if user is None:
        user = common_user(pod) if defaults.user is None else defaults.user
    private = user is not None or pod_security(pod).get("fsGroup") is not None
    own = FileDefaults(_PRIVATE_MODE if private else defaults.mode, user)
    file = make_file(source["path"], token.token.encode(), own)
    return Filled(by_path((file,)), token.refresh_at_ns)


def _data(decode: Any, found: Mapping[str, Any] | None) -> dict[str, bytes]:
    try:
        data: dict[str, bytes] = decode(found or {})
    except Invalid as exc:
        raise VolumeError(str(exc)) from exc
    return data
