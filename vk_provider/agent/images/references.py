"""Image names, after the grammar of github.com/distribution/reference. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vk_provider.common.errors import Invalid

_DEFAULT_DOMAIN, _DEFAULT_PATH, _DEFAULT_TAG = "docker.io", "library/", "latest"
_MAX_NAME = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(rf"(?P<name>[^@]+?)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?")
_DIGEST_LENGTHS = {"sha256": 64, "sha512": 128}
_IMAGE_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


@dataclass(frozen=True)
class Reference:
    """An image's full name; `tag` or `digest` is set, or both (then the digest decides)."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def tagged(self) -> str:
        """`repository:tag`; empty where there is no tag."""
        return f"{self.repository}:{self.tag}" if self.tag else ""

    def at(self, digest: str) -> str:
        """`repository@digest`."""
        return f"{self.repository}@{digest}"

    def __str__(self) -> str:
        return self.at(self.digest) if self.digest else self.tagged


def parse_reference(text: str) -> Reference:
    """Return the full name that a pod's `image` stands for (docker.io, library/, :latest).

    Raises Invalid; the sentence begins as the kubelet's for InvalidImageName.
    """
    problem = f"couldn't parse image name {text[:300]!r}"
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise Invalid(f"{problem}: invalid reference format")
    name, tag, digest = match["name"], match["tag"] or "", match["digest"] or ""
    if not digest and _IMAGE_ID.fullmatch(name) and not tag:
        raise Invalid(f"{problem}: an image id cannot be pulled, name its repository")
    domain, path = _split(name)
    if not re.fullmatch(_DOMAIN, domain):
        raise Invalid(f"{problem}: {domain!r} is no registry's name")
    if _PATH.fullmatch(path) is None:
        if _PATH.fullmatch(path.lower()) is not None:
            raise Invalid(f"{problem}: repository name must be lowercase")
        raise Invalid(f"{problem}: invalid reference format")
    if len(domain) + 1 + len(path) > _MAX_NAME:
        raise Invalid(f"{problem}: repository name must not be more than {_MAX_NAME} characters")
    if digest:
        _check_digest(digest, problem)
    elif not tag:
        tag = _DEFAULT_TAG
    return Reference(domain, path, tag, digest)


def image_id(text: str) -> str:
    """Return `sha256:…` if the text is an image id (with or without the prefix), else empty."""
    match = _IMAGE_ID.fullmatch(text)
    return f"sha256:{match[1]}" if match else ""


def is_digest(text: object) -> bool:
    """Whether it is a digest that this program accepts from registries."""
    return isinstance(text, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", text) is not None


def _split(name: str) -> tuple[str, str]:
    """Tell the registry from the repository as Docker does: by a dot, a colon or `localhost`."""
    first, slash, rest = name.partition("/")
    host = "." in first or ":" in first or first == "localhost" or first.lower() != first
    if slash and host:
        if first in ("index.docker.io", "docker.io"):
            return _DEFAULT_DOMAIN, rest if "/" in rest else _DEFAULT_PATH + rest
        return first, rest
    return _DEFAULT_DOMAIN, name if slash else _DEFAULT_PATH + name


def _check_digest(digest: str, problem: str) -> None:
    algorithm, _, encoded = digest.partition(":")
    length = _DIGEST_LENGTHS.get(algorithm)
    if length is None:
        raise Invalid(f"{problem}: unsupported digest algorithm {algorithm!r}")
    if len(encoded) != length or encoded.lower() != encoded:
        raise Invalid(f"{problem}: invalid checksum digest format")
