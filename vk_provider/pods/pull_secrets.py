"""Credentials for pulling, from a pod's imagePullSecrets (pkg/credentialprovider keyring).

They are held in memory alone, for the length of a pull.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger
from vk_provider.pods.image_names import ImageName
from vk_provider.pods.objects import Objects
from vk_provider.pods.podspec import Pod, describe, namespace_of

_DOCKER_HUB = {"docker.io", "index.docker.io", "registry-1.docker.io"}

log = get_logger("pods.pull_secrets")


@dataclass(frozen=True)
class PullSecrets:
    """What was found: entries of docker configurations by registry, and what was not there."""

    entries: Sequence[tuple[str, pb.RegistryAuth]]
    missing: Sequence[str]

    def for_image(self, name: ImageName) -> list[pb.RegistryAuth]:
        """Return the credentials to try, those for the longest path first."""
        matching = [(k, auth) for k, auth in self.entries if _matches(k, name)]
        matching.sort(key=lambda entry: len(entry[0]), reverse=True)
        return [auth for _, auth in matching]


async def read_pull_secrets(pod: Pod, objects: Objects) -> PullSecrets:
    """Read the pod's pull secrets; one that can't be read is listed as missing."""
    entries: list[tuple[str, pb.RegistryAuth]] = []
    missing: list[str] = []
    for reference in pod["spec"].get("imagePullSecrets") or ():
        name = str(reference.get("name") or "")
        if not name:
            continue
        try:
            secret = await objects.secret(namespace_of(pod), name)
        except VkError as exc:
            log.info("pull secret not read", pod=describe(pod), secret=name, error=str(exc))
            missing.append(name)
            continue
        entries += _entries(secret)
    return PullSecrets(entries, missing)


def _entries(secret: Mapping[str, Any]) -> list[tuple[str, pb.RegistryAuth]]:
    data = secret.get("data") or {}
    try:
        if secret.get("type") == "kubernetes.io/dockerconfigjson":
            config = json.loads(base64.b64decode(data.get(".dockerconfigjson") or ""))
            auths = config.get("auths") or {}
        else:
            auths = json.loads(base64.b64decode(data.get(".dockercfg") or "e30="))
        return [(_registry_key(key), _auth(entry)) for key, entry in auths.items()]
    except (ValueError, AttributeError, binascii.Error):
        # Its content is a secret: say which one it is, not what is in it.
        name = secret.get("metadata", {}).get("name")
        log.warning("pull secret is not a docker configuration", secret=name)
        return []


def _auth(entry: Mapping[str, Any]) -> pb.RegistryAuth:
    auth = pb.RegistryAuth(
        username=entry.get("username") or "",
        password=entry.get("password") or "",
        identity_token=entry.get("identitytoken") or "",
        registry_token=entry.get("registrytoken") or "",
    )
    packed = entry.get("auth")
    if packed and not auth.username:
        user, _, password = base64.b64decode(packed).decode().partition(":")
        auth.username, auth.password = user, password.rstrip("\0")
    return auth


def _registry_key(key: str) -> str:
    """Return `host[:port][/path]` of a docker configuration's key, which may be a URL."""
    key = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    host, _, path = key.partition("/")
    return host if path in {"", "v1", "v2"} else f"{host}/{path}"


def _matches(key: str, name: ImageName) -> bool:
    host, _, path = key.partition("/")
    registries = _DOCKER_HUB if name.registry in _DOCKER_HUB else {name.registry}
    if not any(_host_matches(host, registry) for registry in registries):
        return False
    return not path or name.repository == path or name.repository.startswith(f"{path}/")


def _host_matches(pattern: str, host: str) -> bool:
    """Compare part by part, so that `*` stands for one part of a host name."""
    ours, theirs = pattern.split("."), host.split(".")
    return len(ours) == len(theirs) and all(map(fnmatch.fnmatchcase, theirs, ours))
