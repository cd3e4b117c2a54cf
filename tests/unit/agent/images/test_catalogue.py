"""Images on the disk: found again, named, used, removed, damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from vk_provider.agent.images import collector
from vk_provider.agent.images.catalogue import Catalogue
from vk_provider.agent.images.stored import FsUsage, ImageConfig, StoredImage

REPOSITORY = "docker.io/library/app"
PASSWD = "root:x:0:0::/:/bin/sh\nweb:x:101:101::/:/bin/sh\nbad:x:no\n"


def image(number: int, *, used: int = 0, pulled: int = 0, size: int = 10) -> StoredImage:
    return StoredImage(
        image_ref="sha256:" + f"{number:064x}",
        disk=Path("disk.erofs"),
        config=ImageConfig(cmd=["sh"], labels={"a": "b"}),
        passwd="root:x:0:0::/:/bin/sh\n",
        group="",
        repo_tags=[],
        repo_digests=[],
        size_bytes=size,
        pulled_at_ns=pulled,
        last_used_at_ns=used,
    )


def added(catalogue: Catalogue, number: int) -> StoredImage:
    work = catalogue.work_directory()
    (work / "disk.erofs").write_bytes(b"0123456789")
    return catalogue.add(image(number), work)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    catalogue = Catalogue(tmp_path / "images")
    catalogue.load()
    return catalogue


def reloaded(tmp_path: Path) -> Catalogue:
    again = Catalogue(tmp_path / "images")
    again.load()
    return again


def test_images_are_found_again_with_their_names(tmp_path: Path, catalogue: Catalogue) -> None:
    one = added(catalogue, 1)
    digest = f"{REPOSITORY}@sha256:{'a' * 64}"
    named = catalogue.give_names(one.image_ref, f"{REPOSITORY}:latest", digest)
    catalogue.mark_used(one.image_ref, 5_000_000_000)
    found = reloaded(tmp_path)
    for text in ("app", "app:latest", one.image_ref, one.key, digest, f"app:v9@sha256:{'a' * 64}"):
        assert found.find(text) == catalogue.find(text) is not None
    assert found.all()[0].last_used_at_ns == 5_000_000_000
    assert found.all()[0].repo_tags == named.repo_tags
    assert found.find("other") is None
    assert found.find("No Name") is None
    assert found.usage().used_bytes == 10


def test_a_tag_moves_to_the_image_that_was_pulled_last(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    one, two = added(catalogue, 1), added(catalogue, 2)
    for stored, mark in ((one, "a"), (two, "b")):
        digest = f"{REPOSITORY}@sha256:{mark * 64}"
        catalogue.give_names(stored.image_ref, f"{REPOSITORY}:latest", digest)
    found = reloaded(tmp_path).find("app")
    assert found is not None
    assert found.image_ref == two.image_ref
    old = catalogue.by_id(one.image_ref)
    assert old is not None
    assert old.repo_tags == []
    assert old.repo_digests == [f"{REPOSITORY}@sha256:{'a' * 64}"]


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"config": 3}'])
def test_a_damaged_record_takes_its_image_alone(
    tmp_path: Path, catalogue: Catalogue, damage: str
) -> None:
    one, two = added(catalogue, 1), added(catalogue, 2)
    (one.disk.parent / "image.json").write_text(damage)
    found = reloaded(tmp_path)
    assert [stored.image_ref for stored in found.all()] == [two.image_ref]
    assert not one.disk.exists()


def test_a_disk_that_was_cut_short_is_dropped(tmp_path: Path, catalogue: Catalogue) -> None:
    one = added(catalogue, 1)
    one.disk.write_bytes(b"01234")
    assert reloaded(tmp_path).all() == []


def test_unfinished_work_and_strangers_are_told_apart(tmp_path: Path, catalogue: Catalogue) -> None:
    work = catalogue.work_directory()
    (work / "half").write_bytes(b"x")
    stranger = tmp_path / "images" / "lost+found"
    stranger.mkdir()
    reloaded(tmp_path)
    assert not work.exists()
    assert stranger.exists()


def test_a_removed_image_is_gone(tmp_path: Path, catalogue: Catalogue) -> None:
    one = added(catalogue, 1)
    catalogue.remove(one)
    assert catalogue.all() == reloaded(tmp_path).all() == []


@pytest.mark.parametrize(
    ("user", "uid"),
    [("", 0), ("web", 101), ("web:group", 101), ("1000", 1000), ("nobody", None), ("bad", None)],
)
def test_the_users_uid_is_read_from_the_images_passwd(user: str, uid: int | None) -> None:
    stored = StoredImage(
        image_ref="sha256:" + "0" * 64,
        disk=Path("d"),
        config=ImageConfig(user=user),
        passwd=PASSWD,
        group="",
        repo_tags=[],
        repo_digests=[],
        size_bytes=0,
        pulled_at_ns=0,
        last_used_at_ns=0,
    )
    assert stored.uid == uid


def test_the_longest_unused_images_go_first_and_no_more_than_needed() -> None:
    now = 10 * collector.MIN_AGE_NS
    images = [
        image(1, used=3, size=10),
        image(2, used=1, size=10),
        image(3, used=2, size=10),
        image(4, used=0, size=10, pulled=now - 1),  # just pulled
    ]
    full = FsUsage(1000, 40, 185, 0, 0)
    chosen, wanted = collector.plan(images, full, {images[1].image_ref}, now, 80, 80)
    assert wanted == 15
    assert [stored.image_ref for stored in chosen] == [images[2].image_ref, images[0].image_ref]
    roomy = FsUsage(1000, 40, 201, 0, 0)
    assert collector.plan(images, roomy, set(), now, 80, 75) == ([], 0)
    assert collector.plan(images, FsUsage(0, 0, 0, 0, 0), set(), now, 80, 75) == ([], 0)
