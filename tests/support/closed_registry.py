"""A registry that wants a name and a password, beside an open one with the same images."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER = "planted-user"
PASSWORD = "planted-5d1f0c-password"
_HTPASSWD = "planted-user:$2b$04$IZPQ1UL8p3YgCn9jdBQstOqqtpIl35.fKM5557AJHKAFljMSgU7gW\n"
_START_S = 20.0


@dataclass(frozen=True)
class ClosedRegistry:
    """`host`:port of it, and how to name the images in it."""

    host: str

    def image(self, name: str) -> str:
        return f"{self.host}/{name}"


@contextmanager
def closed_registry(directory: Path, storage: Path, port: int) -> Iterator[ClosedRegistry]:
    """Serve what is in another registry's `storage` on the loopback, over plain HTTP."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "htpasswd").write_text(_HTPASSWD)
    config = directory / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {storage}}}}}\n"
        f"auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    process = subprocess.Popen(["docker-registry", "serve", str(config)], stderr=subprocess.DEVNULL)
    try:
        _wait_listening(process, port)
        yield ClosedRegistry(f"127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def _wait_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        assert process.poll() is None, "the closed registry ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "the closed registry does not listen"
            time.sleep(0.05)
        else:
            return
