"""Lets QEMU give back to the host what the guest of a restored VM has freed.

The RAM of such a guest is a private mapping of a sealed file. Of a page that the guest reports as
free QEMU 7.2 punches a hole into the file, which the seal refuses, and only then drops its own copy
of the page, which is all that is wanted (ram_block_discard_range). So the first step is answered
for it: a seccomp filter has fallocate(2) on that one descriptor do nothing and succeed. The guest
finds in the page what the template had there, and free page reporting promises it no more.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from vk_provider.agent.hypervisor.process import start_ticks
from vk_provider.common.errors import Unavailable
from vk_provider.common.logging import get_logger

_log = get_logger("hypervisor")

GIVEN_FROM = 100
"""QEMU is given what it is given by numbers from here on. Those below are its own to give, so that
it gives the memory's file the same at each start."""

_Result = TypeVar("_Result")

# linux/prctl.h, linux/seccomp.h, linux/filter.h, linux/audit.h
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_RET_ALLOW = 0x7FFF0000
_RET_SUCCESS = 0x00050000  # SECCOMP_RET_ERRNO with no error
_LOAD, _UNLESS_EQUAL, _RETURN = 0x20, 0x15, 0x06
_AUDIT_ARCH_X86_64 = 0xC000003E
_FALLOCATE = 285
_OFFSET_NR, _OFFSET_ARCH, _OFFSET_ARG0 = 0, 4, 16


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


class DiscardsNotAnsweredError(Unavailable):
    """It cannot be had here; a VM does as well without, but keeps what its guest has touched."""


def call_with_discards_answered(number: int, work: Callable[[], _Result]) -> _Result:
    """Call `work`; for what it starts, fallocate on descriptor `number` succeeds and does nothing.

    Raises DiscardsNotAnsweredError where the host's kernel takes no such filter.
    """
    return _filtered_thread(number).submit(work).result()


def check_memory_number(pid: int, memory_fd: int, number: int) -> None:
    """Raise DiscardsNotAnsweredError unless that descriptor of a process is that file, NotFound
    where the process has ended.

    A filter for the wrong one would have a disk's discards succeed that were not done.
    """
    try:
        held = Path(f"/proc/{pid}/fd/{number}").stat()
    except OSError as exc:
        start_ticks(pid)  # raises NotFound where QEMU has ended: then it tells nothing
        raise DiscardsNotAnsweredError(f"QEMU has no descriptor {number} this time: {exc}") from exc
    if not os.path.samestat(held, os.fstat(memory_fd)):
        raise DiscardsNotAnsweredError(f"QEMU has its memory not at descriptor {number} this time")


def own_memory_number(pid: int, memory_fd: int) -> int | None:
    """Return the descriptor by which QEMU itself has opened a file; None where it can't be told."""
    wanted = os.fstat(memory_fd)
    try:
        entries = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError as exc:
        _log.warning("QEMU's descriptors cannot be read", error=str(exc))
        return None
    for entry in entries:
        try:
            held = entry.stat()
        except OSError:
            continue
        if int(entry.name) < GIVEN_FROM and os.path.samestat(held, wanted):
            return int(entry.name)
    _log.warning("restored VMs will not give memory back: QEMU's descriptor of it is not found")
    return None


@functools.cache
def _filtered_thread(number: int) -> ThreadPoolExecutor:
    # A filter is a thread's and its children's, and stays; so such a thread does nothing else.
    thread = ThreadPoolExecutor(1, f"discards of {number} answered")
    try:
        thread.submit(_install, number).result()
    except BaseException:
        thread.shutdown()
        raise
    return thread


def _install(number: int) -> None:
    allow = 5  # instructions from the first test to the last line
    steps = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_UNLESS_EQUAL, 0, allow, _AUDIT_ARCH_X86_64),
        (_LOAD, 0, 0, _OFFSET_NR),
        (_UNLESS_EQUAL, 0, allow - 2, _FALLOCATE),
        (_LOAD, 0, 0, _OFFSET_ARG0),
        (_UNLESS_EQUAL, 0, allow - 4, number),
        (_RETURN, 0, 0, _RET_SUCCESS),
        (_RETURN, 0, 0, _RET_ALLOW),
    ]
    instructions = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Program(len(steps), instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        why = os.strerror(ctypes.get_errno())
        raise DiscardsNotAnsweredError(f"the host's kernel takes no seccomp filter: {why}")
