"""Templates on disk: complete or not there, verified, and pruned in order."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vk_provider.agent.hypervisor.templates.key import TemplateKey
from vk_provider.agent.hypervisor.templates.sealed import (
    SealedTemplate,
    copy_sparse,
    data_chunks,
    load_memory,
    make_memfd,
    seal,
)
from vk_provider.agent.hypervisor.templates.shelf import Entry, Shelf, choose_victims
from vk_provider.common.errors import Exhausted, Internal, NotFound, Unavailable

DIGEST = "ab" * 16
TSC = 2_596_130
KEY = TemplateKey(1, 667, "guest", "7.2.22", "tcg", "")


def template() -> SealedTemplate:
    fd = make_memfd("test", 1 << 20)
    os.pwrite(fd, b"kernel" * 1000, 8192)
    os.pwrite(fd, b"\0" * 4096, 65536)
    os.pwrite(fd, b"end", (1 << 20) - 3)
    seal(fd)
    return SealedTemplate(DIGEST, fd, b"devices", 1 << 20)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path)
    shelf.open()
    made = template()
    shelf.save(made, TSC)
    made.close()
    return shelf


def test_what_was_saved_comes_back_sealed(shelf: Shelf) -> None:
    loaded = shelf.load(DIGEST, TSC)
    assert os.pread(loaded.memory_fd, 6000, 8192) == b"kernel" * 1000
    assert os.pread(loaded.memory_fd, 3, (1 << 20) - 3) == b"end"
    assert loaded.state == b"devices"
    with pytest.raises(PermissionError):
        os.pwrite(loaded.memory_fd, b"x", 0)
    loaded.close()


def test_zeros_take_no_space(shelf: Shelf, tmp_path: Path) -> None:
    assert (tmp_path / DIGEST / "memory").stat().st_blocks * 512 <= 16384


def test_each_use_reads_the_state_from_its_beginning(shelf: Shelf) -> None:
    loaded = shelf.load(DIGEST, TSC)
    with loaded.in_use() as (_, first), loaded.in_use() as (memory, second):
        assert os.read(first, 3) == b"dev"
        assert os.read(second, 7) == b"devices"
        loaded.close()
        assert os.pread(memory, 3, (1 << 20) - 3) == b"end"


@pytest.mark.parametrize("name", ["memory", "state", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_torn_template_is_noticed(shelf: Shelf, tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / DIGEST / name
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "flip":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 0xFF]))
    else:
        path.unlink()
    with pytest.raises(Internal, match=r"torn|checksums"):
        shelf.load(DIGEST, TSC)


def test_a_host_with_another_clock_is_noticed(shelf: Shelf) -> None:
    shelf.load(DIGEST, TSC + 100).close()
    with pytest.raises(Internal, match="clock is another"):
        shelf.load(DIGEST, TSC + 1000)


def test_half_made_folders_are_cleared_at_the_start(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST}.part").mkdir()
    (tmp_path / "other.gone").mkdir()
    assert sorted(shelf.open()) == [f"{DIGEST}.part", "other.gone"]
    assert [e.digest for e in shelf.entries()] == [DIGEST]


def test_a_full_disk_is_told_and_nothing_half_made_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    shelf = Shelf(tmp_path / "templates")
    shelf.open()
    made = template()
    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(Exhausted, match="cannot be kept on disk"):
        shelf.save(made, TSC)
    assert list((tmp_path / "templates").iterdir()) == []
    made.close()


def test_removal_may_be_repeated(shelf: Shelf, tmp_path: Path) -> None:
    shelf.remove(DIGEST)
    shelf.remove(DIGEST)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotFound):
        shelf.load(DIGEST, TSC)


@given(st.lists(st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=9000)), max_size=6))
def test_a_checksum_is_of_the_content_alone(writes: list[tuple[int, bytes]]) -> None:
    size = 1 << 18
    one, two, three = (make_memfd("test", size) for _ in range(3))
    os.pwrite(two, bytes(size), 0)  # no holes: other extents, same content
    for at, data in writes:
        os.pwrite(one, data, at * 4000)
        os.pwrite(two, data, at * 4000)
    copy = make_memfd("test", 0)
    assert copy_sparse(one, copy, size) == copy_sparse(two, three, size)
    assert os.pread(copy, size, 0) == os.pread(two, size, 0)
    for fd in (one, two, three, copy):
        os.close(fd)


def test_extents_of_small_blocks_do_not_shift_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1 << 16
    source, copy = make_memfd("test", size), make_memfd("test", 0)
    os.pwrite(source, b"y" * 3000, 9 * 1024)
    expected = copy_sparse(source, copy, size)

    def seek(_: int, offset: int, how: int) -> int:
        if how == os.SEEK_HOLE:
            return 12 * 1024
        if offset > 9 * 1024:
            raise OSError(errno.ENXIO, "no more data")
        return 9 * 1024

    with monkeypatch.context() as patch:
        patch.setattr(os, "lseek", seek)
        assert copy_sparse(source, copy, size) == expected
    assert os.pread(copy, size, 0) == os.pread(source, size, 0)
    os.close(source)
    os.close(copy)


def test_a_closed_template_is_not_saved_as_an_empty_one(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.open()
    made = template()
    made.close()
    with pytest.raises(Unavailable):
        shelf.save(made, TSC)
    assert not shelf.has(DIGEST)
    # Nor where the descriptor is lost in the middle of the work.
    with pytest.raises(OSError, match="Bad file descriptor"):
        list(data_chunks(-1, 4096))


def test_a_template_of_another_version_is_told_from_a_torn_one(
    shelf: Shelf, tmp_path: Path
) -> None:
    manifest = tmp_path / DIGEST / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 3', '"version": 1'))
    with pytest.raises(Internal, match="another version"):
        shelf.load(DIGEST, TSC)


def test_a_memory_is_loaded_as_it_was_summed(tmp_path: Path) -> None:
    made = template()
    with (tmp_path / "memory").open("wb") as file:
        checksum = copy_sparse(made.memory_fd, file.fileno(), made.size)
    fd, size, found = load_memory(tmp_path / "memory")
    assert (size, found) == (made.size, checksum)
    os.close(fd)
    made.close()


@pytest.mark.parametrize(
    "change",
    [
        {"vcpus": 2},
        {"ram_mib": 668},
        {"guest_key": "other"},
        {"qemu_version": "8.0"},
        {"accelerator": "kvm"},
        {"cpu": "x"},
    ],
)
def test_every_input_is_in_the_key(change: dict[str, str | int]) -> None:
    changed = replace(KEY, **change)  # type: ignore[arg-type]
    assert changed.digest != KEY.digest
    assert replace(KEY).digest == KEY.digest


DAY = 24 * 3600.0


def entries(*sizes: int) -> list[Entry]:
    return [Entry(str(i), size, 100 * DAY + i) for i, size in enumerate(sizes)]


def victims(
    found: list[Entry], *, space: int = 1000, missing: int = 0, days: float = 1
) -> list[str]:
    return choose_victims(
        found,
        keep=frozenset({"0"}),
        now=(100 + days) * DAY,
        space_bytes=space,
        missing_bytes=missing,
    )


def test_templates_go_oldest_first_and_no_more_than_needed() -> None:
    found = entries(10, 10, 10, 10)
    assert victims(found) == []
    assert victims(found, space=25) == ["1", "2"]
    assert victims(found, missing=15) == ["1", "2"]
    assert victims(found, missing=1000) == ["1", "2", "3"]


def test_templates_that_nobody_uses_go() -> None:
    assert victims(entries(10, 10), days=15) == ["1"]
