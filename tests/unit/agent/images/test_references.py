"""Image names, by the cases of distribution/reference's own documentation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vk_provider.agent.images.references import image_id, parse_reference
from vk_provider.common.errors import Invalid

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox:latest"),
        ("user/app", "docker.io/user/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/user/app", "docker.io/user/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("registry:5000/a/b/c", "registry:5000/a/b/c:latest"),
        ("registry.example.com/a", "registry.example.com/a:latest"),
        ("[2001:db8::1]:5000/repo", "[2001:db8::1]:5000/repo:latest"),
        ("127.0.0.1:5010/test/busybox:1", "127.0.0.1:5010/test/busybox:1"),
        ("a__b-c/e.d---f", "docker.io/a__b-c/e.d---f:latest"),
        (f"app@sha256:{HEX}", f"docker.io/library/app@sha256:{HEX}"),
        (f"app:v1@sha256:{HEX}", f"docker.io/library/app@sha256:{HEX}"),
        ("Registry/app", "Registry/app:latest"),
    ],
)
def test_short_names_stand_for_full_ones(text: str, full: str) -> None:
    assert str(parse_reference(text)) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":justtag",
        "@sha256:" + HEX,
        "repo@sha256:" + HEX[:-2],
        "repo@md5:" + HEX[:32],
        "repo@sha256:" + HEX.upper(),
        "Uppercase:tag",
        "test:5000/Uppercase/lowercase:tag",
        "a//b",
        "/a",
        "a/",
        "repo:" + "t" * 129,
        "aa/" + "a" * 300,
        "-host/repo",
        "a.b-/repo",
        "repo:tag:tag",
        "repo tag",
        "repo\n",
        "docker://busybox",
        HEX,
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="couldn't parse image name"):
        parse_reference(text)


@given(st.text())
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except Invalid:
        return
    assert parse_reference(str(reference)) == parse_reference(str(parse_reference(str(reference))))


def test_ids_are_told_from_names() -> None:
    assert image_id(HEX) == image_id(f"sha256:{HEX}") == f"sha256:{HEX}"
    assert image_id("busybox") == image_id("") == ""
