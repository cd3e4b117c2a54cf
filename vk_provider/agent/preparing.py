"""Templates of the usual shapes, so that already the first pods of a host start quickly."""

from __future__ import annotations

from vk_provider.agent.context import Context
from vk_provider.agent.settings import MIB
from vk_provider.agent.shapes import usual_shapes


async def prepare_usual_shapes(context: Context) -> None:
    """Have a template of each shape that most pods get, one after the other.

    For the background: pods that come meanwhile have the first claim to the CPU.
    """
    if not context.settings.templates:
        return
    for shape in usual_shapes(context.sizes):
        await context.machines.prepare(shape.vcpus, shape.memory_bytes // MIB)
