"""Templates: a booted guest, saved once and restored copy-on-write for each VM of its shape.

Makes them in the background, checks each by a restore before it counts, keeps them on disk under
the hash of all they depend on, and shares their memory, sealed, between unprivileged QEMUs.
Refuses to be needed: whatever is wrong with a template, its VM boots cold.
"""

from vk_provider.agent.hypervisor.templates.library import TemplateLibrary
from vk_provider.agent.hypervisor.templates.restore import restore_state
from vk_provider.agent.hypervisor.templates.sealed import SealedTemplate

__all__ = ["SealedTemplate", "TemplateLibrary", "restore_state"]
