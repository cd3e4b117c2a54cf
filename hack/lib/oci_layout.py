"""Writes a directory tree as a one-layer OCI image into an OCI layout, reproducibly.

Usage: oci_layout.py ROOT LAYOUT TAG [CONFIG_JSON]. CONFIG_JSON is the image's `config` object.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

_OCI = "application/vnd.oci.image"


def layer(root: Path) -> bytes:
    """Return the tree as an uncompressed tar: sorted, without times, owned by root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            info = tar.gettarinfo(path, str(path.relative_to(root)))
            info.mtime, info.uname, info.gname = 0, "", ""
            if info.isfile():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    return buffer.getvalue()


def write(root: Path, layout: Path, tag: str, config: dict[str, Any]) -> str:
    """Add the image to the layout (made if missing); return its manifest's digest."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return f"sha256:{digest}", len(data)

    tar = layer(root)
    digest, size = put(gzip.compress(tar, compresslevel=6, mtime=0))
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
    }
    config_digest, config_size = put(json.dumps(image, sort_keys=True).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": {
            "mediaType": f"{_OCI}.config.v1+json",
            "digest": config_digest,
            "size": config_size,
        },
        "layers": [{"mediaType": f"{_OCI}.layer.v1.tar+gzip", "digest": digest, "size": size}],
    }
    manifest_digest, manifest_size = put(json.dumps(manifest, sort_keys=True).encode())
    index_file = layout / "index.json"
    index = {"schemaVersion": 2, "manifests": []}
    if index_file.exists():
        index = json.loads(index_file.read_text())
    entry = {
        "mediaType": manifest["mediaType"],
        "digest": manifest_digest,
        "size": manifest_size,
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }
    index["manifests"].append(entry)  # type: ignore[attr-defined]
    index_file.write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return manifest_digest


if __name__ == "__main__":
    root, layout, tag, *rest = sys.argv[1:]
    print(write(Path(root), Path(layout), tag, json.loads(rest[0]) if rest else {}))
