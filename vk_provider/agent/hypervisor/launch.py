"""Starting QEMU: a chain of small programs that give away, step by step, what it must not have."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vk_provider.agent.hypervisor.cgroups import Cgroup
from vk_provider.agent.hypervisor.discards import call_with_discards_answered
from vk_provider.common.errors import Invalid, Unavailable

# Joins the groups before anything else runs, so that no moment is unbounded; a full host kills VMs
# before it kills the agent. $1 is the count of files, then the files.
_JOIN = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 > "$1" || exit 125; shift; n=$((n-1)); done; '
    'echo 500 > /proc/self/oom_score_adj; exec "$@"'
)
_MAX_SOCKET_PATH = 107  # unix(7): sun_path
_BACKLOG = 4
_PR_SET_THP_DISABLE = 41  # linux/prctl.h


def launch_arguments(
    command: Sequence[str],
    *,
    procs_files: Sequence[Path],
    netns: str | None,
    uid: int,
    groups: Sequence[int] = (),
) -> list[str]:
    """Return the arguments that run `command` in its groups and namespace, as that user."""
    chain = ["/bin/sh", "-c", _JOIN, "sh", str(len(procs_files)), *map(str, procs_files)]
    # A guest's memory has its pod's secrets. A core file is never of one byte, and with that limit,
    # unlike with 0, a core_pattern's program gets none either (fs/coredump.c).
    chain += ["prlimit", "--core=1:1", "--"]
    if netns is not None:
        chain += ["nsenter", f"--net=/run/netns/{netns}", "--"]
    chain += ["setpriv", f"--reuid={uid}", f"--regid={uid}"]
    chain += [f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"]
    chain += ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--", *command]
    return chain


def spawn(
    command: Sequence[str],
    *,
    cgroup: Cgroup,
    netns: str | None,
    uid: int,
    groups: Sequence[int],
    fds: Sequence[int],
    stderr_fd: int,
    memory_number: int | None,
) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, with those descriptors and no other.

    memory_number: where it will have its memory's file, for `discards`; None: they are not wanted.
    Raises Unavailable when the host cannot run it.
    """
    arguments = launch_arguments(
        command, procs_files=cgroup.procs_files(), netns=netns, uid=uid, groups=groups
    )

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr_fd,
            pass_fds=tuple(fds),
            start_new_session=True,
            cwd="/",
            # One heap for all of QEMU's threads: they are idle for the most part, each VM pays.
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "LANG": "C",
                "MALLOC_ARENA_MAX": "1",
            },
        )

    try:
        if memory_number is None:
            return start()
        return call_with_discards_answered(memory_number, start)
    except OSError as exc:
        raise Unavailable(f"QEMU could not be started by {arguments[0]}: {exc}") from exc


def use_small_pages() -> None:
    """Have what this process starts from now on get no huge pages (prctl(2)).

    QEMU asks for them for its translation cache and its ROMs, and 3 MiB of each VM's stay empty.
    A kernel that has none refuses, which is as good.
    """
    ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


def listen(path: Path) -> socket.socket:
    """Make a listening socket that only root reaches; QEMU gets its descriptor.

    A connection waits in its queue until QEMU runs, so nobody has to try again.
    Raises Invalid for a path that is too long for a socket.
    """
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise Invalid(
            f"{path} is too long for the name of a socket ({_MAX_SOCKET_PATH} bytes at most); "
            "choose a shorter run directory"
        )
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
