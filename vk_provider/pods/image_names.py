"""Image names: `[registry/]repository[:tag][@digest]` (distribution's reference grammar)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vk_provider.common.errors import Invalid

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?P<name>(?:{_HOST}/)?{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?"
    r"(?:@(?P<digest>[a-zA-Z][a-zA-Z0-9]*(?:[-_+.][a-zA-Z][a-zA-Z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)
_DEFAULT_REGISTRY = "docker.io"
_NAME_LENGTH = 255


@dataclass(frozen=True, slots=True)
class ImageName:
    """A parsed name. `registry` and `repository` are those that credentials are kept for."""

    full: str
    """As it is asked for: with the tag `latest` where neither tag nor digest was given."""
    registry: str
    repository: str


def parse_image_name(text: str) -> ImageName:
    """Return the parsed name; raises Invalid, worded as the kubelet words it."""
    match = _NAME.fullmatch(text)
    if match is None or len(match["name"]) > _NAME_LENGTH:
        raise Invalid(f'couldn\'t parse image name "{text}": invalid reference format')
    head, slash, rest = match["name"].partition("/")
    if slash and ({".", ":"} & set(head) or head == "localhost" or head.lower() != head):
        registry, repository = head, rest
    else:
        registry, repository = _DEFAULT_REGISTRY, match["name"]
        repository = repository if slash else f"library/{repository}"
    full = text if match["tag"] or match["digest"] else f"{text}:latest"
    return ImageName(full, registry, repository)
