"""Planted secrets are found nowhere: no disk, no log, no command line, no environment of ours.

Where they may be, and are looked for on purpose, so that a mistake in the search would show: in the
memory of the VM, and in the control plane's own store.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import pytest

from hack.devcluster.processes import running, stop
from tests.e2e.conftest import Cluster, Namespace
from tests.support.closed_registry import PASSWORD, USER, ClosedRegistry, closed_registry

pytestmark = pytest.mark.e2e

_PORT = 5031
_BLOCK = 4 * 1024 * 1024
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
    _until(lambda: namespace.logs("keeper") == lengths)
    # What is carried by the streams is a secret, too.
    entered = namespace.raw(
        "exec", "-i", "keeper", "--", "sh", "-c", "cat > /dev/null", input=planted["exec"].encode()
    )
    assert entered.returncode == 0, entered.stderr
    token = namespace.kubectl("exec", "keeper", "--", "cat", _TOKEN).strip()
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    needles = _needles([*planted.values(), token, PASSWORD, pair])

    with _watching_processes(needles) as seen:
        # While a pod comes and another goes, and over a new start of both processes.
        namespace.pod(
            "second",
            "exec sleep 100000",
            image=registry.image("test/busybox:1"),
            imagePullSecrets=[{"name": "pull"}],
            container={"imagePullPolicy": "Always"},
            wait="",
        )
        while namespace.json("get", "pod", "second")["status"]["phase"] != "Running":
            seen()
        _restart(cluster)
        namespace.wait("pod/keeper", "condition=Ready")
        seen()
    assert _found_in_folders(_our_folders(cluster), needles) == []
    assert _found_in_core_files(cluster) == []

    etcd = _found_in_folders([cluster.settings.directory / "etcd"], needles)
    assert etcd, "the search finds nothing even where the secrets are kept"


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


def _our_folders(cluster: Cluster) -> list[Path]:
    """Return every place that node and agent write to, /run and /tmp included."""
    settings = cluster.settings
    folders = [settings.directory / name for name in ("agent", "node", "logs", "processes")]
    return [*folders, settings.log_directory, settings.run_directory, Path("/run"), Path("/tmp")]


def _found_in_folders(folders: list[Path], needles: list[bytes]) -> list[str]:
    found = []
    for folder in folders:
        for path in folder.rglob("*") if folder.exists() else ():
            if path.is_symlink() or not path.is_file() or not _ours(folder, path):
                continue
            found += [f"{path} has {needle!r}" for needle in _in_file(path, needles)]
    return found


def _ours(folder: Path, path: Path) -> bool:
    """Of /tmp only what lies there itself: the rest is the tests' and the control plane's."""
    if path.parent == Path("/run/netns"):
        return False  # names of namespaces, which can't be read
    return folder != Path("/tmp") or path.parent == folder


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


def _found_in_core_files(cluster: Cluster) -> list[Path]:
    return [p for p in cluster.settings.directory.rglob("core*") if p.is_file() and _is_core(p)]


def _is_core(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(18)
    return head[:4] == b"\x7fELF" and head[16:18] == b"\x04\0"


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


def _until(condition: Callable[[], bool], timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.3)
