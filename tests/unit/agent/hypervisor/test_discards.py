"""Discards that are answered for a process: of the one descriptor, and for nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from vk_provider.agent.hypervisor.discards import (
    GIVEN_FROM,
    DiscardsNotAnsweredError,
    call_with_discards_answered,
    check_memory_number,
    own_memory_number,
)
from vk_provider.agent.hypervisor.templates.sealed import make_memfd, seal
from vk_provider.common.errors import NotFound

SIZE = 1 << 20
NUMBER = 50
# Punches a hole by each descriptor that it is told of, and says what came of it.
PUNCH = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
for number in sys.argv[1:]:
    print(ctypes.get_errno() if libc.fallocate(int(number), 3, 0, 4096) else 0)
"""


@pytest.fixture
def memory() -> Iterator[int]:
    fd = make_memfd("test", SIZE)
    os.pwrite(fd, b"x" * SIZE, 0)
    seal(fd)
    yield fd
    os.close(fd)


def punch(*numbers: int) -> list[int]:
    command = [sys.executable, "-c", PUNCH, *map(str, numbers)]
    return [
        int(line) for line in subprocess.check_output(command, pass_fds=numbers).decode().split()
    ]


def test_one_descriptor_is_answered_for_and_its_file_stays_whole(memory: int) -> None:
    at, beside = fcntl.fcntl(memory, fcntl.F_DUPFD, NUMBER), fcntl.fcntl(memory, fcntl.F_DUPFD, 60)
    try:
        assert at == NUMBER
        found = call_with_discards_answered(NUMBER, lambda: punch(at, beside))
        assert found == [0, errno.EPERM]
        assert punch(at) == [errno.EPERM]
    finally:
        os.close(at)
        os.close(beside)
    assert os.pread(memory, SIZE, 0) == b"x" * SIZE


def test_an_error_of_the_work_is_its_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        call_with_discards_answered(NUMBER, lambda: 1 // 0)


def test_a_process_own_descriptor_is_told_from_one_that_it_was_given(memory: int) -> None:
    given = fcntl.fcntl(memory, fcntl.F_DUPFD, GIVEN_FROM)
    program = (
        f"import os, sys; own = os.open('/proc/self/fd/{given}', os.O_RDWR); print(own, flush=True)"
        "; sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, pass_fds=[given]) as process:
        os.close(given)
        assert process.stdout is not None
        own = int(process.stdout.readline())
        assert own_memory_number(process.pid, memory) == own
        check_memory_number(process.pid, memory, own)
        with pytest.raises(DiscardsNotAnsweredError, match="not at descriptor 0"):
            check_memory_number(process.pid, memory, 0)
        with pytest.raises(DiscardsNotAnsweredError, match=f"no descriptor {own + 1}"):
            check_memory_number(process.pid, memory, own + 1)
    with pytest.raises(NotFound):
        check_memory_number(process.pid, memory, own)
    assert own_memory_number(process.pid, memory) is None
    with subprocess.Popen(["cat"], stdin=pipe) as stranger:
        assert own_memory_number(stranger.pid, memory) is None
        stranger.communicate()
