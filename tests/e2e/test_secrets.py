"""Planted secrets are found nowhere: in no file, no log, no command line, no environment.

Not even on a tmpfs: a guest alone keeps what its pod was given. They are looked for on purpose in
the control plane's own store, where they are, so that a mistake in the search would show.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import pytest

from hack.devcluster.processes import running, stop
from tests.e2e.conftest import Cluster, Namespace
from tests.support.closed_registry import PASSWORD, USER, ClosedRegistry, closed_registry
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

_PORT = 5031
_BLOCK = 4 * 1024 * 1024
# Wherever anything of ours, or what it calls, might write: a disk or memory.
_PLACES = [
    *(Path(p) for p in ("/etc", "/run", "/tmp", "/var", "/dev/shm")),
    *(Path.home() / p for p in (".cache", ".config", ".docker", ".local")),
]
_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


@pytest.fixture
def registry(cluster: Cluster, tmp_path: Path) -> Iterator[ClosedRegistry]:
    conf = cluster.settings.directory / "registries.conf"
    before = conf.read_text()
    conf.write_text(f'{before}[[registry]]\nlocation = "127.0.0.1:{_PORT}"\ninsecure = true\n')
    storage = cluster.settings.directory / "registry"
    try:
        with closed_registry(tmp_path, storage, _PORT) as closed:
            yield closed
    finally:
        conf.write_text(before)


def test_planted_secrets_are_found_nowhere(
    cluster: Cluster, namespace: Namespace, registry: ClosedRegistry
) -> None:
    began = time.time() - 1
    planted = {name: f"planted-{name}-{uuid.uuid4().hex}" for name in ("env", "file", "exec")}
    _make_secrets(namespace, registry, planted)
    namespace.pod(
        "keeper",
        'echo "has $(printf %s "$WORD" | wc -c) $(wc -c < /hidden/word)"; exec sleep 100000',
        image=registry.image("test/busybox:1"),
        imagePullSecrets=[{"name": "pull"}],
        volumes=[{"name": "hidden", "secret": {"secretName": "words"}}],
        container={
            "imagePullPolicy": "Always",
            "env": [
                {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "words", "key": "env"}}}
            ],
            "volumeMounts": [{"name": "hidden", "mountPath": "/hidden"}],
        },
    )
    lengths = f"has {len(planted['env'])} {len(planted['file'])}\n"
    until(lambda: namespace.logs("keeper") == lengths)
    # What is carried by the streams is a secret, too.
    entered = namespace.raw(
        "exec", "-i", "keeper", "--", "sh", "-c", "cat > /dev/null", input=planted["exec"].encode()
    )
    assert entered.returncode == 0, entered.stderr
    token = namespace.kubectl("exec", "keeper", "--", "cat", _TOKEN).strip()
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    needles = _needles([*planted.values(), token, PASSWORD, pair])

    with _watching_processes(needles) as look:
        # While a pod comes, and over a new start of both processes.
        namespace.pod(
            "second",
            "exec sleep 100000",
            image=registry.image("test/busybox:1"),
            imagePullSecrets=[{"name": "pull"}],
            container={"imagePullPolicy": "Always"},
            wait="",
        )

        def runs() -> bool:
            look()
            phase: str = namespace.json("get", "pod", "second")["status"]["phase"]
            return phase == "Running"

        until(runs)
        _restart(cluster)
        # The guest still has what the container runs with.
        count = ("exec", "keeper", "--", "sh", "-c", "printf %s $WORD | wc -c")
        until(lambda: namespace.raw(*count).stdout == b"%d\n" % len(planted["env"]))
        look()
        for pid in (_pid(cluster, "node"), _pid(cluster, "agent"), *_qemus()):
            assert _leaves_no_core(pid)
    etcd = cluster.settings.directory / "etcd"
    # Namespaces have names in a folder, and no content.
    files = _changed_files(_PLACES, began, but=[etcd, Path("/run/netns")])
    assert _found_in(files, needles) == []
    assert _found_in(_changed_files([etcd], began), needles), "the search finds nothing at all"


def _make_secrets(namespace: Namespace, registry: ClosedRegistry, planted: dict[str, str]) -> None:
    auths = {"auths": {registry.host: {"username": USER, "password": PASSWORD}}}
    for name, kind, data in (
        ("words", "Opaque", {"env": planted["env"], "word": planted["file"]}),
        ("pull", "kubernetes.io/dockerconfigjson", {".dockerconfigjson": json.dumps(auths)}),
    ):
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "type": kind,
            "stringData": data,
        }
        namespace.kubectl("create", "-f", "-", stdin=json.dumps(body))


def _restart(cluster: Cluster) -> None:
    """End node and agent as an upgrade does, and start them again."""
    for name in ("node", "agent"):
        record = running(cluster.settings, name)
        assert record is not None
        stop(cluster.settings, record)
    cluster.start_agent()
    cluster.start_node()


def _needles(secrets: list[str]) -> list[bytes]:
    """Return what to look for: each in clear, and as base64 has it at any place of a text."""
    needles = [secret.encode() for secret in secrets]
    for secret in list(needles):
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + secret)
            # The first and last letters depend on the neighbours.
            needles.append(encoded[4 if shift else 0 : len(encoded) - 4])
    assert all(len(needle) > 16 for needle in needles)
    return needles


def _changed_files(places: Sequence[Path], since: float, but: Sequence[Path] = ()) -> list[Path]:
    """Return every file below some folders that was changed since then, on disks and tmpfs."""
    pruned = [word for path in but for word in ("-path", path, "-prune", "-o")]
    found = subprocess.run(
        ["find", *places, *pruned, "-type", "f", "-newerct", f"@{since:.0f}", "-print0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,  # files come and go
    ).stdout
    return [Path(os.fsdecode(name)) for name in found.split(b"\0") if name]


def _found_in(files: Iterable[Path], needles: list[bytes]) -> list[str]:
    return [f"{path} has {needle!r}" for path in files for needle in _in_file(path, needles)]


def _written(file: FileIO, overlap: int) -> Iterator[bytes]:
    """Yield what was ever written: scratch disks are holes for the most part."""
    end = os.fstat(file.fileno()).st_size
    place = 0
    while place < end:
        try:
            place = os.lseek(file.fileno(), place, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return  # no more data
            raise
        block = os.pread(file.fileno(), _BLOCK + overlap, place)
        yield block
        place += min(len(block), _BLOCK) or end


def _in_file(path: Path, needles: list[bytes]) -> list[bytes]:
    overlap = max(map(len, needles))
    found: set[bytes] = set()
    try:
        with path.open("rb", buffering=0) as file:
            for block in _written(file, overlap):
                found |= {needle for needle in needles if needle in block}
    except FileNotFoundError:
        return []
    return sorted(found)


def _pid(cluster: Cluster, name: str) -> int:
    record = running(cluster.settings, name)
    assert record is not None
    return record.pid


def _qemus() -> list[int]:
    """Return the VMs' processes: a guest's memory has its pod's secrets."""
    found = subprocess.run(["pgrep", "^qemu-system"], capture_output=True, text=True, check=True)
    return [int(pid) for pid in found.stdout.split()]


def _leaves_no_core(pid: int) -> bool:
    """Whether the kernel would write no core file of it, nor give one to a program."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return re.search(r"^Max core file size +1 +1 ", limits, re.MULTILINE) is not None


@contextmanager
def _watching_processes(needles: list[bytes]) -> Iterator[Callable[[], None]]:
    """Yield how to look at all processes; no command line or environment may hold a secret."""
    looked_at: set[str] = set()

    def look() -> None:
        for directory in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    text = (directory / name).read_bytes()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                looked_at.add(text.split(b"\0", 1)[0].decode(errors="replace"))
                where = f"{name} of {text[:80]!r}"
                assert not any(needle in text for needle in needles), where

    look()
    yield look
    look()
    assert any("qemu" in program for program in looked_at)
