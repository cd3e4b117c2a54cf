"""A real agent as a process of its own, with a registry of the test images beside it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import listens

ROOT = Path(__file__).parents[2]
_START_S = 60.0
_TURN_S = 0.05


class RealAgent:
    """`vk-provider agent` in directories of its own; it may be killed and started again."""

    def __init__(self, directory: Path, run_dir: Path, registry: str, spare_vms: int) -> None:
        self.state_dir = directory / "state"
        self.log_dir = directory / "pods"
        self.output = directory / "agent.log"
        self.run_dir = run_dir
        self.socket = run_dir / "agent.sock"
        self.registry = registry
        self._spare_vms = spare_vms
        self._registries_conf = directory / "registries.conf"
        self._registries_conf.write_text(
            f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        return f"unix:{self.socket}"

    @property
    def busybox(self) -> str:
        return f"{self.registry}/test/busybox:1"

    def start(self) -> None:
        """Start it and return when it is ready."""
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(self._command(), stderr=output, cwd=ROOT)
        deadline = time.monotonic() + _START_S
        while not listens(self.socket):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the agent did not start:\n{self.tail()}")
            time.sleep(_TURN_S)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the agent does not run"
        return self._process.pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal and wait for the end."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def remove_all(self) -> None:
        """Let the agent remove everything that it knows."""
        self.kill(signal.SIGTERM)
        subprocess.run([*self._command(), "--remove-all"], check=True, cwd=ROOT)

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-lines:])

    def _command(self) -> list[str]:
        return [
            sys.executable, "-m", "vk_provider.cli", "agent",
            f"--agent-state-dir={self.state_dir}", f"--agent-run-dir={self.run_dir}",
            f"--agent-socket={self.socket}", f"--log-dir={self.log_dir}",
            f"--guest-image={os.environ['VK_GUEST_IMAGE']}",
            f"--registries-conf={self._registries_conf}", "--pod-cidr=10.89.0.0/24",
            f"--spare-vms={self._spare_vms}",
        ]  # fmt: skip


@contextmanager
def real_agent(directory: Path, spare_vms: int = 0) -> Iterator[RealAgent]:
    """Yield a started agent; at the end nothing of it is left, or the test fails.

    It keeps no VMs ready unless told so, that tests can count pods' VMs.
    """
    # A short path on a tmpfs: sockets have short names, and secrets are here.
    run_dir = Path(tempfile.mkdtemp(prefix="vkt", dir="/run"))
    try:
        with _registry(directory) as registry:
            agent = RealAgent(directory, run_dir, registry, spare_vms)
            try:
                agent.start()
                yield agent
            finally:
                agent.remove_all()
    finally:
        shutil.rmtree(run_dir)


@contextmanager
def _registry(directory: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = directory / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory / 'registry'}}}}}\n"
        f"http: {{addr: {host}}}\n"
    )
    server = subprocess.Popen(["docker-registry", "serve", str(config)])
    try:
        _wait_for(f"http://{host}/v2/")
        subprocess.run([ROOT / "hack" / "test-images", "push", host], check=True)
        yield host
    finally:
        server.terminate()
        server.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            urllib.request.urlopen(url).close()
        except urllib.error.URLError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(_TURN_S)
        else:
            return
