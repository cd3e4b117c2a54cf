"""Progress is told by the kernel, not looked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

from vk_provider.agent.images.watch import on_write


async def test_writing_is_told_and_so_is_what_follows_soon_after(tmp_path: Path) -> None:
    told = asyncio.Queue[None]()
    path = tmp_path / "blob"
    path.touch()
    with on_write(tmp_path, lambda: told.put_nowait(None)):
        with path.open("ab") as file:
            file.write(b"1")
            file.flush()
            await told.get()
            file.write(b"2")
            file.flush()
            await told.get()
        path.rename(tmp_path.parent / "moved")
        await told.get()


async def test_nothing_is_told_afterwards(tmp_path: Path) -> None:
    told: list[None] = []
    with on_write(tmp_path, lambda: told.append(None)):
        pass
    (tmp_path / "blob").write_bytes(b"late")
    await asyncio.sleep(0)
    assert told == []
