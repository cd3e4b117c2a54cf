"""The OCI process of each container, kept for execs: it holds the environment.

On the run directory's tmpfs, for root alone, so that an agent that comes back can still exec.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from vk_provider.common.errors import Exhausted, FailedPrecondition


def save_process(run_dir: Path, container_id: str, process: dict[str, Any]) -> None:
    """Write the process down. Raises Exhausted."""
    path = _path(run_dir, container_id)
    unfinished = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(orjson.dumps(process))
        unfinished.rename(path)
    except OSError as exc:
        raise Exhausted(f"{path} cannot be written: {exc}") from exc


def load_process(run_dir: Path, container_id: str) -> dict[str, Any]:
    """Read it back. Raises FailedPrecondition."""
    path = _path(run_dir, container_id)
    try:
        process = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as exc:
        raise FailedPrecondition(
            f"what container {container_id} runs as is no longer known ({exc}); "
            "nothing can be executed in it until it is restarted"
        ) from exc
    if not isinstance(process, dict):
        raise FailedPrecondition(f"{path} holds no process")
    return process


def remove_process(run_dir: Path, container_id: str) -> None:
    _path(run_dir, container_id).unlink(missing_ok=True)


def _path(run_dir: Path, container_id: str) -> Path:
    return run_dir / "processes" / f"{container_id}.json"
