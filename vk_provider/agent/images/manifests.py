"""Manifests and configs as registries serve them; checked, since anybody can push. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from vk_provider.agent.images.references import is_digest
from vk_provider.agent.images.stored import ImageConfig
from vk_provider.common.errors import Invalid, NotFound

_LISTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_OS, _ARCHITECTURE = "linux", "amd64"


@dataclass(frozen=True)
class Manifest:
    """digest: the manifest's own. config_digest: the image's id. layer_bytes: as fetched."""

    digest: str
    config_digest: str
    layer_bytes: int


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def choose_platform(data: bytes, image: str) -> str | None:
    """Return the digest of the manifest for linux/amd64 in a list; None if it is no list.

    Raises NotFound (no such platform), Invalid (not a manifest).
    """
    value = _object(data, f"the manifest of {image}")
    entries = value.get("manifests")
    if value.get("mediaType") not in _LISTS and not isinstance(entries, list):
        return None
    offered = []
    for entry in entries if isinstance(entries, list) else []:
        platform = entry.get("platform") if isinstance(entry, dict) else None
        if not isinstance(platform, dict) or not is_digest(entry.get("digest")):
            continue
        os, architecture = platform.get("os"), platform.get("architecture")
        if (os, architecture) == (_OS, _ARCHITECTURE):
            return str(entry["digest"])
        offered.append(f"{os}/{architecture}")
    there = ", ".join(offered[:20]) or "nothing"
    raise NotFound(f"no match for platform {_OS}/{_ARCHITECTURE} in {image}, which has {there}")


def parse_manifest(data: bytes, image: str) -> Manifest:
    """Read an image's manifest (OCI, or Docker's schema 2). Raises Invalid."""
    value = _object(data, f"the manifest of {image}")
    if value.get("schemaVersion") == 1:
        raise Invalid(f"{image} has a manifest of Docker's old schema 1; push it again in schema 2")
    config, layers = value.get("config"), value.get("layers")
    if not isinstance(config, dict) or not is_digest(config.get("digest")):
        raise Invalid(f"the manifest of {image} names no config: it is no container image")
    if not isinstance(layers, list):
        raise Invalid(f"the manifest of {image} lists no layers: it is no container image")
    sizes = [layer.get("size") if isinstance(layer, dict) else None for layer in layers]
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise Invalid(f"the manifest of {image} has a layer without a size")
    return Manifest(digest_of(data), config["digest"], sum(size or 0 for size in sizes))


def parse_config(data: bytes, image: str) -> ImageConfig:
    """Read an image's config (OCI image specification, config.md). Raises Invalid."""
    what = f"the config of {image}"
    value = _object(data, what)
    system = (value.get("os", _OS), value.get("architecture", _ARCHITECTURE))
    if system != (_OS, _ARCHITECTURE):
        raise Invalid(f"{image} is for {system[0]}/{system[1]}; pods run {_OS}/{_ARCHITECTURE}")
    config = value.get("config") or {}
    if not isinstance(config, dict):
        raise Invalid(f"{what} is damaged: `config` is no object")
    labels = config.get("Labels") or {}
    if not isinstance(labels, dict):
        raise Invalid(f"{what} is damaged: `Labels` is no object")
    return ImageConfig(
        entrypoint=_strings(config, "Entrypoint", what),
        cmd=_strings(config, "Cmd", what),
        env=_strings(config, "Env", what),
        working_dir=_string(config, "WorkingDir", what),
        user=_string(config, "User", what),
        stop_signal=_string(config, "StopSignal", what),
        labels={str(name): str(text) for name, text in labels.items()},
    )


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise Invalid(f"{what} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise Invalid(f"{what} is not a JSON object")
    return value


def _strings(config: dict[str, Any], name: str, what: str) -> list[str]:
    value = config.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Invalid(f"{what} is damaged: `{name}` is no list of strings")
    return value


def _string(config: dict[str, Any], name: str, what: str) -> str:
    value = config.get(name) or ""
    if not isinstance(value, str):
        raise Invalid(f"{what} is damaged: `{name}` is no string")
    return value
