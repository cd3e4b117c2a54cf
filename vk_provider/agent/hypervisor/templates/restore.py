"""Saving a paused guest's device state, and putting it back into a new QEMU."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from vk_provider.agent.hypervisor.machine import Machine
from vk_provider.agent.hypervisor.templates.sealed import make_memfd
from vk_provider.common.errors import DeadlineExceeded, Internal

_MAX_STATE_BYTES = 64 * 1024 * 1024
# x-ignore-shared: the memory is not part of the stream, it is shared as a file.
_CAPABILITIES = [
    {"capability": "x-ignore-shared", "state": True},
    {"capability": "events", "state": True},
]


async def save_state(machine: Machine, timeout_s: float) -> bytes:
    """Stop the guest and return its devices' state; its memory stays in the shared file.

    Raises DeadlineExceeded, Internal when QEMU cannot save it.
    """
    await machine.qmp.execute("stop")
    fd = make_memfd("vk-template-saving", 0)
    try:
        await _migrate(machine, "migrate", fd, timeout_s)
        size = os.fstat(fd).st_size
        if not 0 < size <= _MAX_STATE_BYTES:
            raise Internal(f"QEMU saved a device state of {size} bytes, which cannot be right")
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


async def restore_state(machine: Machine, state_fd: int, timeout_s: float) -> None:
    """Load a state into a QEMU that waits for it; the guest then waits for `cont`.

    Raises DeadlineExceeded, Internal when QEMU refuses the state.
    """
    await _migrate(machine, "migrate-incoming", state_fd, timeout_s)


async def _migrate(machine: Machine, command: str, fd: int, timeout_s: float) -> None:
    await machine.qmp.execute_with("migrate-set-capabilities", {"capabilities": _CAPABILITIES})
    await machine.qmp.execute_with("getfd", {"fdname": "state"}, [fd])
    completed = machine.expect("MIGRATION", status="completed")
    failed = machine.expect("MIGRATION", status="failed")

    async def finished() -> None:
        await asyncio.wait([completed, failed], return_when=asyncio.FIRST_COMPLETED)

    try:
        await machine.qmp.execute_with(command, {"uri": "fd:state"})
        async with asyncio.timeout(timeout_s):
            await machine.unless_ended(finished())
        if failed.done():
            answer: dict[str, Any] = await machine.qmp.execute("query-migrate")
            raise Internal(f"QEMU's {command} failed: {answer.get('error-desc', 'no reason said')}")
    except TimeoutError as exc:
        raise DeadlineExceeded(f"QEMU's {command} took more than {timeout_s:g} s") from exc
    finally:
        completed.cancel()
        failed.cancel()
