"""Folders of pods' logs: made by the writer, removed with the last log in them."""

from __future__ import annotations

from pathlib import Path

from vk_provider.agent.logs import remove_logs
from vk_provider.common.errors import Exhausted


def remove_container_logs(path: Path) -> None:
    """Remove a container's log with its rotated files, then the folders that are empty now.

    The container's folder and the pod's may hold logs of other runs; then they stay.
    """
    remove_logs(path)
    for folder in (path.parent, path.parent.parent):
        try:
            folder.rmdir()
        except OSError:
            return


def make_container_log(path: Path) -> None:
    """Make an empty log, so that it can be read as soon as its container is there.

    Raises Exhausted. One that is there stays as it is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o640)
    except OSError as exc:
        raise Exhausted(f"the log {path} cannot be made: {exc}") from exc
