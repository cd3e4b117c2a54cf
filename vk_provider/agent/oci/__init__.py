"""OCI runtime specs for containers in a guest, as pure functions of configuration and image.

Written here and not in the guest, so that the guest only carries out. Paths inside the guest are
those of `guest.proto`. Refuses to do I/O and to decide what a pod may do: that is the node's.
"""

from __future__ import annotations

from vk_provider.agent.oci.resources import linux_resources
from vk_provider.agent.oci.spec import Sources, make_container_spec
from vk_provider.agent.oci.users import User, resolve_user

__all__ = [
    "Sources",
    "User",
    "linux_resources",
    "make_container_spec",
    "resolve_user",
]
