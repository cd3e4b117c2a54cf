"""Volumes: what goes into them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.podspecs import FakeObjects, FakeToken, container, make_pod
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Unavailable
from vk_provider.pods.errors import VolumeError
from vk_provider.pods.volumes.build import build_file_volumes, build_volumes
from vk_provider.pods.volumes.images import ImageVolume, image_volumes

ALLOCATABLE = {"cpu": "4", "memory": "8Gi"}


@pytest.fixture
def objects() -> FakeObjects:
    found = FakeObjects()
    found.put_config_map("settings", {"a": "1", "b": "2"}, binaryData={"bin": "/w=="})
    found.put_secret("login", {"user": b"ann", "key": b"\x00\x01"})
    return found


async def build(objects: FakeObjects, *volumes: Any, **spec: Any) -> list[pb.Volume]:
    volumes = tuple({"name": f"v{index}"} | volume for index, volume in enumerate(volumes))
    refs = spec.pop("image_refs", None)
    pod = make_pod(
        *spec.pop("containers", ()), volumes=list(volumes), **({"labels": {"app": "web"}} | spec)
    )
    return await build_volumes(pod, objects, allocatable=ALLOCATABLE, image_refs=refs)


def files(volume: pb.Volume) -> dict[str, tuple[bytes, int]]:
    return {file.path: (file.data, file.mode) for file in volume.files.files}


async def test_a_config_map_as_a_whole_and_by_items(objects: FakeObjects) -> None:
    whole, some = await build(
        objects,
        {"configMap": {"name": "settings", "defaultMode": 0o644}},
        {
            "configMap": {
                "name": "settings",
                "defaultMode": 0o400,
                "items": [
                    {"key": "a", "path": "./x//y"},
                    {"key": "bin", "path": "z", "mode": 0o777},
                ],
            }
        },
    )
    assert files(whole) == {"a": (b"1", 0o644), "b": (b"2", 0o644), "bin": (b"\xff", 0o644)}
    assert files(some) == {"x/y": (b"1", 0o400), "z": (b"\xff", 0o777)}


async def test_a_secret_and_what_may_be_missing(objects: FakeObjects) -> None:
    secret, absent, some = await build(
        objects,
        {"secret": {"secretName": "login"}},
        {"secret": {"secretName": "absent", "optional": True}},
        {
            "secret": {
                "secretName": "login",
                "optional": True,
                "items": [{"key": "no", "path": "no"}, {"key": "user", "path": "user"}],
            }
        },
    )
    assert files(secret) == {"user": (b"ann", 0o644), "key": (b"\x00\x01", 0o644)}
    assert absent.WhichOneof("source") == "files"
    assert files(absent) == {}
    assert files(some) == {"user": (b"ann", 0o644)}


async def test_the_downward_api_shows_the_pod(objects: FakeObjects) -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "./cpu", "resourceFieldRef": {"containerName": "app", "resource": "limits.cpu"}},
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}, "mode": 0o400},
    ]
    (volume,) = await build(objects, {"downwardAPI": {"items": items, "defaultMode": 0o640}})
    assert files(volume) == {
        "labels": (b'app="web"', 0o640),
        "cpu": (b"4", 0o640),
        "name": (b"web", 0o400),
    }


TOKEN_VOLUME = {
    "projected": {
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "settings", "items": [{"key": "a", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ],
    }
}


async def test_the_default_service_account_volume(objects: FakeObjects) -> None:
    (volume,) = await build(objects, TOKEN_VOLUME)
    assert files(volume) == {
        "token": (b"token-1", 0o644),
        "ca.crt": (b"1", 0o644),
        "namespace": (b"shop", 0o644),
    }
    assert objects.token_calls == [("shop", "default", [], 3607)]


@pytest.mark.parametrize(
    ("spec", "mode", "uid"),
    [
        ({}, 0o644, None),
        ({"securityContext": {"runAsUser": 7}}, 0o600, 7),
        ({"securityContext": {"runAsUser": 7, "fsGroup": 9}}, 0o640, 7),
        ({"securityContext": {"fsGroup": 9}}, 0o640, None),
        (
            {
                "containers": [
                    container("a", securityContext={"runAsUser": 1}),
                    container("b", securityContext={"runAsUser": 2}),
                ]
            },
            0o644,
            None,
        ),
        ({"containers": [container("a", securityContext={"runAsUser": 1})]}, 0o600, 1),
    ],
)
async def test_a_token_is_the_users_whom_all_containers_run_as(
    objects: FakeObjects, spec: Any, mode: int, uid: int | None
) -> None:
    (volume,) = await build(objects, TOKEN_VOLUME, **spec)
    token = next(file for file in volume.files.files if file.path == "token")
    assert token.mode == mode
    assert (token.uid if token.HasField("uid") else None) == uid


async def test_a_later_source_replaces_an_earlier_one(objects: FakeObjects) -> None:
    sources = [
        {"configMap": {"name": "settings"}},
        {"secret": {"name": "login", "items": [{"key": "user", "path": "a"}]}},
    ]
    (volume,) = await build(objects, {"projected": {"sources": sources}})
    assert files(volume)["a"] == (b"ann", 0o644)
    assert files(volume)["b"] == (b"2", 0o644)


async def test_an_fs_group_may_read_all_files_and_owns_the_volumes(objects: FakeObjects) -> None:
    secret, scratch = await build(
        objects,
        {"secret": {"secretName": "login", "defaultMode": 0o400}},
        {"emptyDir": {}},
        securityContext={"fsGroup": 9, "fsGroupChangePolicy": "OnRootMismatch"},
    )
    assert files(secret)["user"] == (b"ann", 0o440)
    assert (secret.fs_group, scratch.fs_group) == (9, 9)
    assert scratch.fs_group_on_root_mismatch


@pytest.mark.parametrize(
    ("empty_dir", "limits", "expected"),
    [
        ({}, {}, pb.ScratchVolume()),
        ({"sizeLimit": "1Gi"}, {"memory": "1Mi"}, pb.ScratchVolume(size_limit_bytes=1 << 30)),
        (
            {"medium": "Memory"},
            {"memory": "1Gi"},
            pb.ScratchVolume(medium=pb.ScratchVolume.MEMORY, size_limit_bytes=1 << 30),
        ),
        (
            {"medium": "Memory", "sizeLimit": "1Mi"},
            {"memory": "1Gi"},
            pb.ScratchVolume(medium=pb.ScratchVolume.MEMORY, size_limit_bytes=1 << 20),
        ),
        (
            {"medium": "Memory", "sizeLimit": "2Gi"},
            {"memory": "1Gi"},
            pb.ScratchVolume(medium=pb.ScratchVolume.MEMORY, size_limit_bytes=1 << 30),
        ),
        ({"medium": "Memory"}, {}, pb.ScratchVolume(medium=pb.ScratchVolume.MEMORY)),
    ],
)
async def test_scratch_space(
    objects: FakeObjects, empty_dir: Any, limits: Any, expected: pb.ScratchVolume
) -> None:
    (volume,) = await build(
        objects, {"emptyDir": empty_dir}, containers=[container(resources={"limits": limits})]
    )
    assert volume.scratch == expected
    assert volume.WhichOneof("source") == "scratch"


async def test_image_volumes_are_pulled_before(objects: FakeObjects) -> None:
    volume = {"image": {"reference": "tools:1"}}
    assert image_volumes(make_pod(volumes=[{"name": "v0"} | volume])) == [
        ImageVolume("v0", "tools:1", "IfNotPresent")
    ]
    (built,) = await build(objects, volume, image_refs={"v0": "sha256:2"})
    assert built.image.image_ref == "sha256:2"
    with pytest.raises(VolumeError, match='image "tools:1" is not pulled yet'):
        await build(objects, volume)


@pytest.mark.parametrize(
    ("volume", "complaint"),
    [
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        (
            {"configMap": {"name": "settings", "items": [{"key": "no", "path": "x"}]}},
            "configmap references non-existent config key: no",
        ),
        (
            {"secret": {"secretName": "login", "items": [{"key": "no", "path": "x"}]}},
            "references non-existent secret key: no",
        ),
        (
            {
                "projected": {
                    "sources": [{"configMap": {"name": "no"}}, {"secret": {"name": "nor"}}]
                }
            },
            '[configmap "no" not found, secret "nor" not found]',
        ),
        (
            {"configMap": {"name": "settings", "items": [{"key": "a", "path": "../x"}]}},
            '"../x" can\'t be the path of a file in a volume',
        ),
        (
            {"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "spec.no"}}]}},
            "unsupported fieldPath: spec.no",
        ),
        ({"nfs": {"server": "x"}}, "volume source nfs is not supported by this node"),
    ],
)
async def test_what_is_missing_is_said_for_each_volume(
    objects: FakeObjects, volume: Any, complaint: str
) -> None:
    with pytest.raises(VolumeError) as failure:
        await build(objects, {"emptyDir": {}}, volume, volume)
    assert failure.value.messages == (
        f'MountVolume.SetUp failed for volume "v1" : {complaint}',
        f'MountVolume.SetUp failed for volume "v2" : {complaint}',
    )


async def test_an_api_server_that_is_away_is_no_missing_object(objects: FakeObjects) -> None:
    objects.error = Unavailable("the API server is away")
    volume = {"configMap": {"name": "settings", "optional": True}}
    with pytest.raises(VolumeError, match="the API server is away"):
        await build(objects, volume)
    with pytest.raises(VolumeError, match="failed to fetch token: the API server is away"):
        await build(objects, {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})


async def test_only_files_are_built_again_and_the_next_token_has_its_time(
    objects: FakeObjects,
) -> None:
    objects.token = FakeToken("t", refresh_at_ns=42)
    volumes = [{"name": "a", "emptyDir": {}}, {"name": "b"} | TOKEN_VOLUME]
    built = await build_file_volumes(make_pod(volumes=volumes), objects, allocatable=ALLOCATABLE)
    assert [volume.name for volume in built.volumes] == ["b"]
    assert built.renew_at_ns == 42


async def test_objects_are_read_side_by_side(objects: FakeObjects) -> None:
    met = asyncio.Barrier(3)
    read = objects.config_map

    async def config_map(namespace: str, name: str) -> dict[str, Any]:
        await met.wait()
        return await read(namespace, name)

    objects.config_map = config_map  # type: ignore[method-assign]
    for name in "abc":
        objects.put_config_map(name, {name: name})
    sources = [{"configMap": {"name": "a"}}, {"configMap": {"name": "b"}}]
    async with asyncio.timeout(30):
        await build(objects, {"projected": {"sources": sources}}, {"configMap": {"name": "c"}})
