"""The notes that this room leaves: on sandboxes and containers, and on pods for their owners.

Those on sandboxes and containers hold what must be known after a restart when the API object is
gone. Those on pods go out with the status. Never a secret.
"""

from __future__ import annotations

from vk_provider._pb import sandbox_pb2 as pb

PREFIX = "vk-provider.dev/"
_MIB = 1024 * 1024

CONTAINER_HASH = PREFIX + "container-hash"
"""Of the definition that a run was made from (`planner.container_hash`)."""
RESOURCES = PREFIX + "resources"
"""On containers: the resources that a run has, as a spec writes them; on sandboxes: those that the
pod's containers had been given when it started, by name (JSON, `resize`)."""
TERMINATION_POLICY = PREFIX + "termination-message-policy"
GRACE_PERIOD = PREFIX + "termination-grace-period-seconds"
"""On sandboxes: how long an orphan's containers are given to end."""

SHAPE = PREFIX + "shape"
"""On pods: the VM's size as `vk-provider.dev/size` is written, and why it is that one."""
START_MODE = PREFIX + "start-mode"
"""On pods: "template" or "cold"."""
POD_NOTES = (SHAPE, START_MODE)
"""What the node writes on pods, and nobody else should."""


def pod_notes(sandbox: pb.SandboxStatus | None) -> dict[str, str]:
    """Return the annotations for a pod whose newest sandbox is this one; none before it is up."""
    notes: dict[str, str] = {}
    if sandbox is not None and sandbox.shape.cpu_milli:
        shape = sandbox.shape
        mib = shape.memory_bytes // _MIB
        memory = f"{mib}Mi" if mib % 1024 else f"{mib // 1024}Gi"
        # The agent's reason begins with the size.
        notes[SHAPE] = shape.reason or f"{shape.cpu_milli / 1000:g}x{memory}"
    if sandbox is not None and sandbox.start_mode:
        notes[START_MODE] = sandbox.start_mode
    return notes
