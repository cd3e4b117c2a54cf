"""Reading an image's tree without leaving it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vk_provider.agent.images.rootfs import read_text
from vk_provider.common.errors import Invalid


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (tmp_path / "secret").write_text("host's own")
    return root


def test_links_are_followed_inside_the_tree(tmp_path: Path, root: Path) -> None:
    (root / "usr").mkdir()
    (root / "usr/passwd").write_text("root:x:0:0")
    (root / "etc/passwd").symlink_to("/usr/passwd")
    assert read_text(root, "etc/passwd") == "root:x:0:0"


@pytest.mark.parametrize(
    "target", ["/../secret", "../../secret", "/etc/passwd", "/proc/self/environ"]
)
def test_no_link_leads_out_of_it(root: Path, target: str) -> None:
    (root / "etc/passwd").symlink_to(target)
    assert read_text(root, "etc/passwd") == ""


def test_what_is_no_file_is_empty(root: Path) -> None:
    assert read_text(root, "etc/passwd") == ""
    os.mkfifo(root / "etc/passwd")
    assert read_text(root, "etc/passwd") == ""
    (root / "etc/group").mkdir()
    assert read_text(root, "etc/group") == ""
    assert read_text(root, "etc/passwd/x") == ""


def test_a_huge_file_is_refused(root: Path) -> None:
    (root / "etc/passwd").write_bytes(b"x" * (1024 * 1024 + 1))
    with pytest.raises(Invalid, match="1 MiB"):
        read_text(root, "etc/passwd")
