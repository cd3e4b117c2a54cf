"""Which template a VM gets, with a maker that boots nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from tests.unit.agent.test_lifecycle import until
from vk_provider.agent.hypervisor import HypervisorSettings
from vk_provider.agent.hypervisor.templates.key import TemplateKey
from vk_provider.agent.hypervisor.templates.library import TemplateLibrary
from vk_provider.agent.hypervisor.templates.maker import Maker
from vk_provider.agent.hypervisor.templates.sealed import SealedTemplate, make_memfd, seal
from vk_provider.agent.hypervisor.templates.shelf import Shelf
from vk_provider.common.errors import DeadlineExceeded

KEY = TemplateKey(1, 667, "guest", "7.2.22", "tcg", "")
TSC = 2_596_130


class PlayedMaker:
    def __init__(self) -> None:
        self.made: list[str] = []
        self.error: Exception | None = None

    async def make(self, key: TemplateKey) -> SealedTemplate:
        self.made.append(key.digest)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        fd = make_memfd("test", 4096)
        os.pwrite(fd, b"x", 0)
        seal(fd)
        return SealedTemplate(key.digest, fd, b"state", 4096)


@asynccontextmanager
async def library(
    tmp_path: Path, maker: PlayedMaker, min_free_bytes: int = 0
) -> AsyncIterator[TemplateLibrary]:
    settings = HypervisorSettings(
        state_dir=tmp_path, run_dir=tmp_path, template_min_free_bytes=min_free_bytes
    )
    opened = TemplateLibrary(settings, cast("Maker", maker), TSC)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


async def test_the_first_vm_of_a_shape_boots_cold_and_asks_for_a_template(tmp_path: Path) -> None:
    maker = PlayedMaker()
    async with library(tmp_path, maker) as templates:
        none, why = await templates.find(KEY)
        assert none is None
        assert "is being made" in why
        assert (await templates.find(KEY))[0] is None
        assert await templates.made(KEY)
        found, which = await templates.find(KEY)
        assert found is not None
        assert KEY.digest[:12] in which
    assert maker.made == [KEY.digest]


async def test_the_next_agent_finds_it_on_disk(tmp_path: Path) -> None:
    maker = PlayedMaker()
    async with library(tmp_path, maker) as templates:
        assert await templates.made(KEY)
    async with library(tmp_path, maker) as templates:
        found, _ = await templates.find(KEY)
        if found is None:  # closed before it was written: made again, which is as good
            assert await templates.made(KEY)
    assert len(maker.made) <= 2


async def test_an_agent_that_ends_leaves_nobody_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def save(*_: object) -> None:
        begun.set()
        go_on.wait()
        ended.set()

    monkeypatch.setattr(Shelf, "save", save)
    async with library(tmp_path, PlayedMaker()) as templates:
        await templates.find(KEY)
        await asyncio.to_thread(begun.wait)
        asyncio.get_running_loop().call_soon(go_on.set)
    assert ended.is_set()


async def test_a_failed_making_is_told_and_given_up_in_the_end(tmp_path: Path) -> None:
    maker = PlayedMaker()
    maker.error = DeadlineExceeded("the guest did not boot")
    async with library(tmp_path, maker) as templates:
        for _ in range(5):
            assert not await templates.made(KEY)
        _, why = await templates.find(KEY)
    assert "given up: the guest did not boot" in why
    assert len(maker.made) == 3


async def test_a_dropped_template_is_never_used_again(tmp_path: Path) -> None:
    maker = PlayedMaker()
    async with library(tmp_path, maker) as templates:
        assert await templates.made(KEY)
        found, _ = await templates.find(KEY)
        assert found is not None
        await templates.drop(found, "the restore failed")
        assert not (tmp_path / "templates" / KEY.digest).exists()
        again, why = await templates.find(KEY)
        assert again is None
        assert "the restore failed" in why
        assert await templates.made(KEY)


async def test_what_vms_of_one_template_fail_by_counts_once_and_a_success_clears_it(
    tmp_path: Path,
) -> None:
    maker = PlayedMaker()
    async with library(tmp_path, maker) as templates:
        for _ in range(4):
            assert await templates.made(KEY)
            found, _ = await templates.find(KEY)
            assert found is not None
            for _ in range(3):
                await templates.drop(found, "the restore failed")
            assert "given up" not in (await templates.find(KEY))[1]
            assert await templates.made(KEY)
            newer, _ = await templates.find(KEY)
            assert newer is not None
            await templates.drop(found, "the restore failed")  # told late: the newer one stays
            assert (await templates.find(KEY))[0] is newer
            templates.proven(newer)


async def test_a_full_disk_costs_only_the_copy_on_it(tmp_path: Path) -> None:
    async with library(tmp_path, PlayedMaker(), min_free_bytes=1 << 60) as templates:
        assert await templates.made(KEY)
        assert (await templates.find(KEY))[0] is not None
    assert not (tmp_path / "templates" / KEY.digest).exists()


async def test_what_nobody_used_for_long_goes_though_no_new_one_is_made(tmp_path: Path) -> None:
    async with library(tmp_path, PlayedMaker()) as templates:
        assert await templates.made(KEY)
        used, unused = tmp_path / "templates" / KEY.digest, tmp_path / "templates" / ("0" * 32)
        await until(used.exists)
        shutil.copytree(used, unused)
        long_ago = time.time() - 15 * 24 * 3600
        os.utime(unused / "manifest.json", (long_ago, long_ago))
        await templates.prune()
        assert (used.exists(), unused.exists()) == (True, False)


async def test_a_disk_that_fills_later_costs_the_copy_on_it_and_no_restore(tmp_path: Path) -> None:
    async with library(tmp_path, PlayedMaker()) as templates:
        assert await templates.made(KEY)
        await until((tmp_path / "templates" / KEY.digest).exists)
    maker = PlayedMaker()
    async with library(tmp_path, maker, min_free_bytes=1 << 60) as templates:
        assert await templates.made(KEY)  # read from the disk
        await templates.prune()
        assert not (tmp_path / "templates" / KEY.digest).exists()
        assert (await templates.find(KEY))[0] is not None
    assert maker.made == []
