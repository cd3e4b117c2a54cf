"""Images from a real registry, made ready by the real tools.

Runs in the network and mount namespaces that hack/test makes.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import random
import socket
import subprocess
import tarfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from tests.support.fake_clock import FakeClock
from vk_provider._pb.sandbox_pb2 import PullImageProgress, RegistryAuth
from vk_provider.agent.images import ImageSettings, ImageStore
from vk_provider.common.errors import (
    Exhausted,
    Invalid,
    NotFound,
    Unauthenticated,
    Unavailable,
)

pytestmark = pytest.mark.vm

# htpasswd -nB puller, with the password "sesame"
HTPASSWD = "puller:$2b$04$HnzllbW7DJ2sIxwb1GICb.QCUO3YycsUT/zTLaKLn0a03GLDoeZqS\n"
OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Registry:
    """open_host serves everybody, closed_host the same to those who know the password."""

    open_host: str
    closed_host: str

    def put(self, path: str, data: bytes, media_type: str) -> None:
        request = urllib.request.Request(
            f"http://{self.open_host}/v2/{path}",
            data=data,
            method="PUT",
            headers={"Content-Type": media_type},
        )
        urllib.request.urlopen(request).close()

    def put_blob(self, repository: str, data: bytes) -> str:
        begin = urllib.request.Request(
            f"http://{self.open_host}/v2/{repository}/blobs/uploads/", method="POST"
        )
        with urllib.request.urlopen(begin) as answer:
            place = answer.headers["Location"].partition("/v2/")[2]
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.put(f"{place}&digest={digest}", data, "application/octet-stream")
        return digest

    def put_image(self, repository: str, layers: list[bytes]) -> str:
        """Push an image of tar layers as REPOSITORY:1; return the manifest's digest."""
        packed = [gzip.compress(layer, mtime=0) for layer in layers]
        diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
        image = {
            "os": "linux",
            "architecture": "amd64",
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        config = orjson.dumps(image)
        manifest = orjson.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{OCI}.manifest.v1+json",
                "config": {
                    "mediaType": f"{OCI}.config.v1+json",
                    "digest": self.put_blob(repository, config),
                    "size": len(config),
                },
                "layers": [
                    {
                        "mediaType": f"{OCI}.layer.v1.tar+gzip",
                        "digest": self.put_blob(repository, layer),
                        "size": len(layer),
                    }
                    for layer in packed
                ],
            }
        )
        self.put(f"{repository}/manifests/1", manifest, f"{OCI}.manifest.v1+json")
        return "sha256:" + hashlib.sha256(manifest).hexdigest()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    directory = tmp_path_factory.mktemp("registry")
    (directory / "htpasswd").write_text(HTPASSWD)
    auth = f"auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}\n"
    processes, hosts = [], []
    for name, extra in (("open", ""), ("closed", auth)):
        host = f"127.0.0.1:{free_port()}"
        config = directory / f"{name}.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n"
            f"{extra}http: {{addr: '{host}'}}\n"
        )
        processes.append(
            subprocess.Popen(["docker-registry", "serve", str(config)], stderr=subprocess.DEVNULL)
        )
        hosts.append(host)
    try:
        script = Path(__file__).parents[3] / "hack" / "test-images"
        subprocess.run([str(script), "push", hosts[0]], check=True)
        yield Registry(*hosts)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def settings(registry: Registry, directory: Path) -> ImageSettings:
    conf = directory / "registries.conf"
    mirror = f'[[registry.mirror]]\nlocation = "{registry.open_host}"\ninsecure = true\n'
    conf.write_text(
        "".join(
            f'[[registry]]\nlocation = "{host}"\ninsecure = true\n'
            for host in (registry.open_host, registry.closed_host)
        )
        + f'[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n{mirror}'
    )
    return ImageSettings(registries_conf=conf)


@pytest.fixture
async def store(registry: Registry, tmp_path: Path) -> AsyncIterator[ImageStore]:
    store = ImageStore(tmp_path / "images", settings(registry, tmp_path))
    await store.open()
    yield store
    await store.close()
    work = tmp_path / "images" / "work"
    assert list(work.iterdir()) == []


async def pull(
    store: ImageStore, image: str, auth: RegistryAuth | None = None
) -> list[PullImageProgress]:
    async with aclosing(store.pull(image, auth)) as messages:
        return [message async for message in messages]


def tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, data in entries:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def file(name: str, data: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), data


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info, b""


async def test_an_image_is_pulled_found_used_and_removed(
    registry: Registry, store: ImageStore
) -> None:
    name = f"{registry.open_host}/test/busybox:1"
    assert store.resolve(name) is None
    messages = await pull(store, name)
    assert messages[0].phase == "resolving"
    assert messages[-1].phase == "done"
    assert messages[-1].bytes_done == messages[-1].bytes_total > 500_000
    image = store.resolve(name)
    assert image is not None
    assert image.image_ref == messages[-1].image.image_ref
    assert image.disk.read_bytes()[1024:1028] == b"\xe2\xe1\xf5\xe0"  # erofs
    assert image.config.cmd == ["sh"]
    assert "user:x:1000:1000" in image.passwd
    assert "staff:x:50:user" in image.group
    assert image.repo_tags == [name]
    assert store.resolve(image.repo_digests[0]) == image
    assert store.usage().used_bytes == image.size_bytes
    await pull(store, image.repo_digests[0])
    assert store.list() == [image]
    await store.remove(name)
    await store.remove(name)
    assert store.list() == []


async def test_mirrors_and_short_names(store: ImageStore) -> None:
    messages = await pull(store, "test/busybox:1")
    assert messages[-1].image.repo_tags == ["docker.io/test/busybox:1"]


async def test_images_outlive_the_store(
    registry: Registry, store: ImageStore, tmp_path: Path
) -> None:
    await pull(store, f"{registry.open_host}/test/busybox:1")
    again = ImageStore(tmp_path / "images", settings(registry, tmp_path))
    await again.open()
    assert again.list() == store.list()
    await again.close()


async def test_a_list_of_platforms(registry: Registry, store: ImageStore) -> None:
    mine = registry.put_image("test/many", [tar(file("hello", b"amd64"))])
    entries = [
        {
            "mediaType": f"{OCI}.manifest.v1+json",
            "digest": mine,
            "size": 1,
            "platform": {"os": "linux", "architecture": "amd64"},
        }
    ]
    index = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.index.v1+json",
        "manifests": entries,
    }
    registry.put("test/many/manifests/list", orjson.dumps(index), f"{OCI}.index.v1+json")
    messages = await pull(store, f"{registry.open_host}/test/many:list")
    listed = "sha256:" + hashlib.sha256(orjson.dumps(index)).hexdigest()
    assert messages[-1].image.repo_digests == [f"{registry.open_host}/test/many@{listed}"]
    entries[0]["platform"] = {"os": "linux", "architecture": "s390x"}
    registry.put("test/many/manifests/other", orjson.dumps(index), f"{OCI}.index.v1+json")
    with pytest.raises(NotFound, match="linux/s390x"):
        await pull(store, f"{registry.open_host}/test/many:other")


async def test_layers_are_merged_and_stay_inside(
    registry: Registry, store: ImageStore, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    registry.put_image(
        "test/layers",
        [
            tar(file("hello", b"1"), file("gone", b"1"), link("out", str(outside))),
            tar(file(".wh.gone"), file("hello", b"2"), file("out/escaped", b"x")),
            tar(link("etc/passwd", "/../../../../../../etc/passwd"), file("../up", b"x")),
        ],
    )
    await pull(store, f"{registry.open_host}/test/layers:1")
    image = store.resolve(f"{registry.open_host}/test/layers:1")
    assert image is not None
    assert image.passwd == ""
    assert list(outside.iterdir()) == []
    root = tmp_path / "extracted"
    process = await asyncio.create_subprocess_exec(
        "fsck.erofs", f"--extract={root}", str(image.disk), stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0
    assert (root / "hello").read_bytes() == b"2"
    assert not (root / "gone").exists()


async def test_what_cannot_be_pulled_says_why(registry: Registry, store: ImageStore) -> None:
    for image, kind, words in (
        (f"{registry.open_host}/test/nothing:1", NotFound, "manifest unknown|name unknown"),
        (f"{registry.open_host}/test/busybox:2", NotFound, "manifest unknown"),
        (f"{registry.open_host}/test/busybox@sha256:{'0' * 64}", NotFound, "unknown"),
        (f"127.0.0.1:{free_port()}/test/busybox:1", Unavailable, "connection refused"),
        ("Test/Busybox", Invalid, "lowercase|couldn't parse"),
        (f"{registry.closed_host}/test/busybox:1", Unauthenticated, "authentication required"),
    ):
        with pytest.raises(kind, match=words):
            await pull(store, image)
    assert store.list() == []


async def test_credentials_open_a_closed_registry(registry: Registry, store: ImageStore) -> None:
    name = f"{registry.closed_host}/test/busybox:1"
    with pytest.raises(Unauthenticated):
        await pull(store, name, RegistryAuth(username="puller", password="wrong"))
    messages = await pull(store, name, RegistryAuth(username="puller", password="sesame"))
    assert messages[-1].image.repo_tags == [name]


async def test_the_same_image_is_fetched_once_for_many(
    registry: Registry, store: ImageStore
) -> None:
    name = f"{registry.open_host}/test/tools:1"
    answers = await asyncio.gather(*(pull(store, name) for _ in range(8)))
    assert len({answer[-1].image.pulled_at_ns for answer in answers}) == 1
    assert any(message.phase == "unpacking" for message in answers[-1])


async def test_the_names_of_one_image_share_one_pull(registry: Registry, store: ImageStore) -> None:
    names = [f"{registry.open_host}/{repository}:1" for repository in ("one/name", "another/name")]
    for repository in ("one/name", "another/name"):
        registry.put_image(repository, [tar(file("hello", b"x" * 1_000_000))])
    answers = await asyncio.gather(*(pull(store, name) for name in names))
    assert len({answer[-1].image.image_ref for answer in answers}) == 1
    assert len({answer[-1].image.pulled_at_ns for answer in answers}) == 1
    unpacked = [any(step.phase == "unpacking" for step in answer) for answer in answers]
    assert sorted(unpacked) == [False, True]
    (image,) = store.list()
    assert sorted(image.repo_tags) == sorted(names)


async def test_a_pull_that_nobody_waits_for_is_given_up(
    registry: Registry, store: ImageStore
) -> None:
    name = f"{registry.open_host}/test/tools:1"
    async with aclosing(store.pull(name)) as messages:
        async for message in messages:
            if message.phase == "unpacking":
                break
    assert store.resolve(name) is None
    await pull(store, name)
    assert store.resolve(name) is not None


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """Mount a file system of that size; unmount it when the store on it is closed."""
    directory.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=True
    )
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


async def test_a_full_disk_is_told_and_harms_nothing(registry: Registry, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "30m") as directory:
        store = ImageStore(directory, settings(registry, tmp_path))
        try:
            await store.open()
            with pytest.raises(Exhausted, match=r"no space left|has [0-9]+ left"):
                await pull(store, f"{registry.open_host}/test/tools:1")
            await pull(store, f"{registry.open_host}/test/busybox:1")
            assert len(store.list()) == 1
        finally:
            await store.close()


async def test_images_in_use_and_new_ones_are_not_collected(
    registry: Registry, store: ImageStore
) -> None:
    await pull(store, f"{registry.open_host}/test/busybox:1")
    image = store.list()[0]
    for in_use in ({image.image_ref}, set[str]()):
        kept = await store.collect(0, 0, in_use)
        assert (kept.removed, kept.freed_bytes) == ([], 0)
        assert kept.wanted_bytes > 0
    assert store.list() == [image]
    assert image.disk.exists()


async def test_a_disk_above_80_percent_loses_the_longest_unused_images_down_to_75(
    registry: Registry, tmp_path: Path
) -> None:
    clock = FakeClock()
    with small_disk(tmp_path / "small", "64m") as directory:
        store = ImageStore(directory, settings(registry, tmp_path), clock=clock)
        try:
            await store.open()
            for number in range(4):  # of 3 % of the disk each, so that two must go
                layer = tar(file("data", random.Random(number).randbytes(2 << 20)))
                registry.put_image(f"test/old-{number}", [layer])
                await pull(store, f"{registry.open_host}/test/old-{number}:1")
            refs = [found(store, f"{registry.open_host}/test/old-{n}:1") for n in range(4)]
            for number in (2, 0, 3, 1):
                await clock.advance(300)
                store.mark_used(refs[number])
            assert await collected(store, {refs[2]}) == []  # there is room
            usage = store.usage()
            ballast = usage.available_bytes - usage.capacity_bytes * 19 // 100
            (directory / "ballast").write_bytes(bytes(ballast))
            assert await collected(store, {refs[2]}) == [refs[0], refs[3]]
            assert {image.image_ref for image in store.list()} == {refs[1], refs[2]}
            usage = store.usage()
            assert 0.72 < 1 - usage.available_bytes / usage.capacity_bytes <= 0.75
            assert await collected(store, set()) == []
        finally:
            await store.close()


def found(store: ImageStore, name: str) -> str:
    image = store.resolve(name)
    assert image is not None
    return image.image_ref


async def collected(store: ImageStore, in_use: set[str]) -> list[str]:
    """Have the store collect as the agent has it; return what was removed."""
    return (await store.collect(in_use=in_use)).removed
