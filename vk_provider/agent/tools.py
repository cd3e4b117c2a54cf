"""Runs other people's programs: skopeo, umoci, mkfs.erofs, nft, CNI plugins.

None of them outlives its caller: it is killed when the caller is cancelled or fails, and, by the
kernel, when the agent is killed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import IO

from vk_provider.common.errors import FailedPrecondition

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PIPE, DEVNULL = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL


@asynccontextmanager
async def tool(
    command: Sequence[str | os.PathLike[str]],
    *,
    package: str,
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
    stderr: int | IO[bytes] = DEVNULL,
    env: Mapping[str, str] | None = None,
    pass_fds: Collection[int] = (),
) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    """Run a program for as long as the block is entered.

    package: the Debian package that has it, for the error when it is missing. env: all that
    it gets of the environment besides PATH. Raises FailedPrecondition (not installed).
    """
    name = os.fspath(command[0])
    program = shutil.which(name, path=PATH)
    if program is None:
        raise FailedPrecondition(f"{name} is not installed (Debian: {package})")
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/setpriv",
        "--pdeathsig=KILL",
        "--",
        program,
        *command[1:],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={"PATH": PATH, **(env or {})},
        pass_fds=tuple(pass_fds),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
