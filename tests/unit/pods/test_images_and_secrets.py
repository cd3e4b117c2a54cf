"""Image names, pull secrets, and durations in messages."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.support.fake_api import FakeApi
from tests.support.fake_clock import FakeClock
from tests.support.pod_world import pod
from vk_provider.common.errors import Invalid
from vk_provider.pods.image_names import parse_image_name
from vk_provider.pods.images import go_duration_ms
from vk_provider.pods.pull_secrets import read_pull_secrets

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "registry", "repository"),
    [
        ("busybox", "busybox:latest", "docker.io", "library/busybox"),
        ("busybox:1", "busybox:1", "docker.io", "library/busybox"),
        ("team/app", "team/app:latest", "docker.io", "team/app"),
        ("localhost/app", "localhost/app:latest", "localhost", "app"),
        ("r.test:5000/a/b:v1", "r.test:5000/a/b:v1", "r.test:5000", "a/b"),
        (f"r.test/a@{DIGEST}", f"r.test/a@{DIGEST}", "r.test", "a"),
        (f"r.test/a:1@{DIGEST}", f"r.test/a:1@{DIGEST}", "r.test", "a"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000", "a"),
    ],
)
def test_names(text: str, full: str, registry: str, repository: str) -> None:
    name = parse_image_name(text)
    assert (name.full, name.registry, name.repository) == (full, registry, repository)


@pytest.mark.parametrize(
    "text", ["", "UPPER", "a b", "a:", "a@sha256:12", "-a", "a//b", "a:" + "x" * 129, "http://a/b"]
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(Invalid, match="invalid reference format"):
        parse_image_name(text)


def _secret(config: Any, kind: str = "kubernetes.io/dockerconfigjson") -> dict[str, Any]:
    key = ".dockerconfigjson" if kind.endswith("json") else ".dockercfg"
    text = base64.b64encode(json.dumps(config).encode()).decode()
    return {"metadata": {"name": "s"}, "type": kind, "data": {key: text}}


async def _users(secret: dict[str, Any], image: str) -> list[str]:
    api = FakeApi(FakeClock())
    api.secrets["default", "s"] = secret
    found = await read_pull_secrets(pod(imagePullSecrets=[{"name": "s"}]), api)
    return [auth.username for auth in found.for_image(parse_image_name(image))]


@pytest.mark.parametrize(
    ("key", "image", "fits"),
    [
        ("r.test", "r.test/a", True),
        ("https://r.test/v2/", "r.test/a", True),
        ("r.test:5000", "r.test/a", False),
        ("r.test/team", "r.test/team/a", True),
        ("r.test/team", "r.test/teamwork/a", False),
        ("*.test", "r.test/a", True),
        ("*.test", "x.r.test/a", False),
        ("https://index.docker.io/v1/", "busybox", True),
        ("docker.io", "busybox", True),
    ],
)
async def test_credentials_by_registry(key: str, image: str, fits: bool) -> None:
    auths = {"auths": {key: {"username": "u", "password": "p"}}}
    assert await _users(_secret(auths), image) == (["u"] if fits else [])


async def test_the_longest_path_is_tried_first() -> None:
    auths = {"auths": {"r.test": {"username": "all"}, "r.test/team": {"username": "team"}}}
    assert await _users(_secret(auths), "r.test/team/a") == ["team", "all"]


async def test_packed_credentials_and_the_old_form() -> None:
    packed = base64.b64encode(b"u:p:q").decode()
    assert await _users(
        _secret({"r.test": {"auth": packed}}, "kubernetes.io/dockercfg"), "r.test/a"
    ) == ["u"]


async def test_a_secret_that_is_no_configuration_is_as_none() -> None:
    broken = {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "!!"}}
    assert await _users(broken, "r.test/a") == []


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (12, "12ms"),
        (1500, "1.5s"),
        (10_000, "10s"),
        (80_000, "1m20s"),
        (300_000, "5m0s"),
        (3_600_000, "1h0m0s"),
    ],
)
def test_durations_as_go_writes_them(milliseconds: int, text: str) -> None:
    assert go_duration_ms(milliseconds) == text
