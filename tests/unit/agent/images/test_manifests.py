"""What registries serve, good and bad."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from vk_provider.agent.images.manifests import choose_platform, parse_config, parse_manifest
from vk_provider.common.errors import Invalid, NotFound

DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64


def index(*entries: dict[str, Any]) -> bytes:
    media = "application/vnd.oci.image.index.v1+json"
    return orjson.dumps({"mediaType": media, "manifests": list(entries)})


def entry(architecture: str, digest: str = DIGEST) -> dict[str, Any]:
    return {"digest": digest, "platform": {"os": "linux", "architecture": architecture}}


def test_the_platform_is_chosen_from_a_list() -> None:
    assert choose_platform(index(entry("arm64", OTHER), entry("amd64")), "x") == DIGEST
    assert choose_platform(orjson.dumps({"config": {}, "layers": []}), "x") is None
    with pytest.raises(NotFound, match="linux/arm64"):
        choose_platform(index(entry("arm64"), {"digest": DIGEST}), "x")
    with pytest.raises(NotFound, match="has nothing"):
        choose_platform(index(entry("amd64", "sha256:../../etc")), "x")


def test_a_manifest_names_its_config_and_its_size() -> None:
    data = orjson.dumps({"config": {"digest": DIGEST}, "layers": [{"size": 3}, {"size": 4}]})
    manifest = parse_manifest(data, "x")
    assert (manifest.config_digest, manifest.layer_bytes) == (DIGEST, 7)


@pytest.mark.parametrize(
    "value",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"schemaVersion":1,"fsLayers":[]}',
        b'{"config":{"digest":"sha256:../x"},"layers":[]}',
        orjson.dumps({"config": {"digest": DIGEST}}),
        orjson.dumps({"config": {"digest": DIGEST}, "layers": [{"size": -1}]}),
        orjson.dumps({"config": {"digest": DIGEST}, "layers": [3]}),
    ],
)
def test_a_bad_manifest_is_refused(value: bytes) -> None:
    with pytest.raises(Invalid, match=r"\bx\b"):
        parse_manifest(value, "x")


def test_a_config_gives_the_containers_defaults() -> None:
    config = parse_config(
        orjson.dumps(
            {
                "os": "linux",
                "architecture": "amd64",
                "config": {
                    "Entrypoint": ["/bin/a"],
                    "Cmd": None,
                    "Env": ["A=b"],
                    "WorkingDir": "/w",
                    "User": "nobody:staff",
                    "StopSignal": "SIGINT",
                    "Labels": {"l": "v"},
                },
            }
        ),
        "x",
    )
    assert (config.entrypoint, config.cmd, config.env) == (["/bin/a"], [], ["A=b"])
    assert (config.working_dir, config.user, config.stop_signal) == ("/w", "nobody:staff", "SIGINT")
    assert parse_config(b"{}", "x").entrypoint == []


@pytest.mark.parametrize(
    "value",
    [
        b"3",
        b'{"os":"windows"}',
        b'{"architecture":"arm64"}',
        b'{"config":[]}',
        b'{"config":[1]}',
        b'{"config":{"Cmd":"sh"}}',
        b'{"config":{"Env":[1]}}',
        b'{"config":{"User":1}}',
        b'{"config":{"Labels":[1]}}',
    ],
)
def test_a_bad_config_is_refused(value: bytes) -> None:
    if value == b'{"config":[]}':
        assert parse_config(value, "x").cmd == []  # as empty as none
        return
    with pytest.raises(Invalid):
        parse_config(value, "x")
