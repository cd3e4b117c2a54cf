"""skopeo's complaints, and how it is told credentials."""

from __future__ import annotations

import base64

import orjson
import pytest

from vk_provider._pb.sandbox_pb2 import RegistryAuth
from vk_provider.agent.images.skopeo import auth_file, explain
from vk_provider.common.errors import (
    Exhausted,
    Invalid,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("reading manifest 2 in r/x: manifest unknown: manifest unknown", NotFound),
        ("reading manifest 1 in r/x: name unknown: repository name not known", NotFound),
        ("reading manifest 1 in r/x: unauthorized: authentication required", Unauthenticated),
        ("requested access to the resource is denied", PermissionDenied),
        ("toomanyrequests: You have reached your pull rate limit", Unavailable),
        ("writing blob: storing blob to file: no space left on device", Exhausted),
        ("something that nobody has seen before", Unavailable),
    ],
)
def test_the_kind_is_told_from_the_registrys_words(words: str, kind: type[Exception]) -> None:
    line = (
        f'time="2026-01-01T00:00:00Z" level=fatal msg="initializing source docker://r/x: {words}"'
    )
    error = explain("r/x", f"Getting image source signatures\n{line}\n", 1)
    assert type(error) is kind
    assert str(error) == f"failed to pull image 'r/x': {words}"


@pytest.mark.parametrize(
    "words",
    [
        "pinging container registry r: dial tcp: connect: connection refused",
        "dial tcp: lookup r: no such host",
        "reading manifest 1 in r/x: received unexpected HTTP status: 503 Service Unavailable",
    ],
)
def test_a_registry_that_is_away_is_told_as_cri_does(words: str) -> None:
    error = explain("r/x", f'level=fatal msg="{words}"\n', 1)
    assert type(error) is Unavailable
    assert str(error) == f"RegistryUnavailable: failed to pull image 'r/x': {words}"


def test_no_words_at_all_are_told_too() -> None:
    assert "said nothing" in str(explain("r/x", "", 137))


def test_credentials_are_written_for_one_registry() -> None:
    content = auth_file(RegistryAuth(username="me", password="p:w"), "r.example")
    assert content is not None
    entry = orjson.loads(content)["auths"]["r.example"]
    assert base64.b64decode(entry["auth"]) == b"me:p:w"
    with_token = auth_file(RegistryAuth(username="me", identity_token="t"), "r.example")
    assert with_token is not None
    assert orjson.loads(with_token)["auths"]["r.example"]["identitytoken"] == "t"
    assert auth_file(None, "r") is auth_file(RegistryAuth(), "r") is None
    with pytest.raises(Invalid, match="registry token"):
        auth_file(RegistryAuth(registry_token="t"), "r")
