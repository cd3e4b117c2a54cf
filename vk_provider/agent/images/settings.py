"""What the operator can say about images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImageSettings:
    """registries_conf: mirrors, blocked and insecure registries (containers-registries.conf(5),
        version 2); None: the host's own (/etc/containers/registries.conf), if there is one.
    parallel_pulls: how many images are fetched at once; others wait for their turn.
    """

    registries_conf: Path | None = None
    parallel_pulls: int = 5
