"""Folders of pods' logs: made by the writer, removed with the last log in them."""

from __future__ import annotations

from pathlib import Path

from vk_provider.agent.logs import remove_logs


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
