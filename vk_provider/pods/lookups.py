"""Reading ConfigMaps and Secrets for pods, with the kubelet's words for what is missing."""

from __future__ import annotations

import base64
import binascii

from vk_provider.common.errors import Invalid, NotFound, VkError
from vk_provider.pods.objects import Json, Objects


class Lookup:
    """Reads each object once while one container or one set of volumes is made.

    `failure` is the error class that tells what the reading was for.
    """

    def __init__(self, objects: Objects, namespace: str, failure: type[VkError]) -> None:
        self._objects = objects
        self._namespace = namespace
        self._failure = failure
        self._config_maps: dict[str, Json | None] = {}
        self._secrets: dict[str, Json | None] = {}

    async def config_map(self, name: str, *, optional: bool) -> Json | None:
        """Return the ConfigMap; None where it is absent and may be."""
        if name not in self._config_maps:
            try:
                self._config_maps[name] = await self._objects.config_map(self._namespace, name)
            except NotFound:
                self._config_maps[name] = None
            except VkError as exc:
                raise self._failure(
                    f'failed to get configmap "{self._namespace}/{name}": {exc}'
                ) from exc
        found = self._config_maps[name]
        if found is None and not optional:
            raise self._failure(f'configmap "{name}" not found')
        return found

    async def secret(self, name: str, *, optional: bool) -> Json | None:
        """Return the Secret; None where it is absent and may be."""
        if name not in self._secrets:
            try:
                self._secrets[name] = await self._objects.secret(self._namespace, name)
            except NotFound:
                self._secrets[name] = None
            except VkError as exc:
                raise self._failure(
                    f'failed to get secret "{self._namespace}/{name}": {exc}'
                ) from exc
        found = self._secrets[name]
        if found is None and not optional:
            raise self._failure(f'secret "{name}" not found')
        return found


def config_map_data(config_map: Json) -> dict[str, bytes]:
    """Return text and binary entries alike, as bytes by key."""
    data = {key: value.encode() for key, value in (config_map.get("data") or {}).items()}
    return data | _decode(config_map.get("binaryData") or {}, "ConfigMap", config_map)


def secret_data(secret: Json) -> dict[str, bytes]:
    """Return a Secret's entries, decoded."""
    return _decode(secret.get("data") or {}, "Secret", secret)


def _decode(entries: Json, kind: str, owner: Json) -> dict[str, bytes]:
    decoded = {}
    for key, value in entries.items():
        try:
            decoded[key] = base64.b64decode(value or "", validate=True)
        except binascii.Error as exc:
            name = owner.get("metadata", {}).get("name", "")
            raise Invalid(f'key {key} of {kind} "{name}" is not base64') from exc
    return decoded
