"""Reads the OCI layout that skopeo left (OCI image specification, image-layout.md). Blocking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from vk_provider.agent.images.references import is_digest
from vk_provider.common.errors import Invalid

_MAX_BLOB_BYTES = 16 * 1024 * 1024


def read_config(layout: Path, image: str) -> bytes:
    """Return the config blob of the layout's only image. Raises Invalid.

    skopeo writes Docker's manifests as OCI ones, so the config's digest may differ from the
    registry's; what it says does not.
    """
    problem = f"the layout of {image} is damaged"
    try:
        index: dict[str, Any] = orjson.loads((layout / "index.json").read_bytes())
        manifest = orjson.loads(_blob(layout, index["manifests"][0]["digest"], problem))
        return _blob(layout, manifest["config"]["digest"], problem)
    except (FileNotFoundError, LookupError, TypeError, orjson.JSONDecodeError) as exc:
        raise Invalid(f"{problem}: {exc!r}") from exc


def layout_bytes(layout: Path) -> int:
    """Return how many bytes have arrived in the layout, unfinished blobs included."""
    total = 0
    for path in layout.rglob("*"):
        try:
            if path.is_file():
                total += path.stat().st_size
        except FileNotFoundError:  # renamed meanwhile
            continue
    return total


def _blob(layout: Path, digest: object, problem: str) -> bytes:
    if not is_digest(digest):
        raise Invalid(f"{problem}: {digest!r} is no digest")
    path = layout / "blobs" / "sha256" / str(digest).removeprefix("sha256:")
    if path.stat().st_size > _MAX_BLOB_BYTES:
        raise Invalid(f"{problem}: a description is larger than 16 MiB")
    return path.read_bytes()
