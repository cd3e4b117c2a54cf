"""The notes that this room leaves on sandboxes and containers, to be read after a restart.

They hold what the runtime must know when the API object is gone. Never a secret.
"""

from __future__ import annotations

PREFIX = "vk-provider.dev/"

CONTAINER_HASH = PREFIX + "container-hash"
"""Of the definition that a run was made from (`planner.container_hash`)."""
TERMINATION_POLICY = PREFIX + "termination-message-policy"
GRACE_PERIOD = PREFIX + "termination-grace-period-seconds"
"""On sandboxes: how long an orphan's containers are given to end."""
