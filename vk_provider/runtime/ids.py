"""Ids that the node chooses, so that a call repeated after a crash names the same thing.

See ARCHITECTURE.md, "Identity".
"""

from __future__ import annotations

import hashlib

_SANDBOX_DIGITS = 32
_SCHEME = "vk://"


def sandbox_id(pod_uid: str, attempt: int) -> str:
    """Return the id (32 hex digits) of a pod's sandbox number `attempt`, counted from 0."""
    return _digest(f"sandbox/{pod_uid}/{attempt}")[:_SANDBOX_DIGITS]


def container_id(sandbox_id: str, name: str, attempt: int) -> str:
    """Return the id (64 hex digits) of the container `name` in its run number `attempt`."""
    return _digest(f"container/{sandbox_id}/{name}/{attempt}")


def status_container_id(container_id: str) -> str:
    """Return the form that a pod's status shows: `vk://ID`, or "" for no id."""
    return f"{_SCHEME}{container_id}" if container_id else ""


def parse_status_container_id(text: str) -> str:
    """Return the bare id of a status' `containerID`; "" where it is empty or not ours."""
    return text.removeprefix(_SCHEME) if text.startswith(_SCHEME) else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
