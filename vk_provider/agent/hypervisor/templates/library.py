"""Which template a VM gets, and the background work that keeps templates coming."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from vk_provider.agent.hypervisor.spec import HypervisorSettings
from vk_provider.agent.hypervisor.templates.key import TemplateKey
from vk_provider.agent.hypervisor.templates.maker import Maker
from vk_provider.agent.hypervisor.templates.sealed import SealedTemplate
from vk_provider.agent.hypervisor.templates.shelf import Shelf, choose_victims
from vk_provider.common.errors import Exhausted, NotFound, VkError
from vk_provider.common.logging import get_logger

_log = get_logger("templates")

_MAX_LOADED = 8
"""How many templates are held in memory; each takes what its guest had touched, about 100 MiB."""
_MAX_FAILURES = 3
"""After so many a template is given up until the agent starts again."""


class TemplateLibrary:
    """All templates of one agent. Owns one task, which makes what was asked for, one at a time."""

    def __init__(self, settings: HypervisorSettings, maker: Maker, tsc_khz: int) -> None:
        self._settings = settings
        self._maker = maker
        self._tsc_khz = tsc_khz
        self._shelf = Shelf(settings.state_dir / "templates")
        self._loaded: dict[str, SealedTemplate] = {}
        self._turn: dict[str, asyncio.Lock] = {}
        self._failures: dict[str, list[str]] = {}
        self._wanted: asyncio.Queue[TemplateKey] = asyncio.Queue()
        self._queued: set[str] = set()
        self._worker: asyncio.Task[None] | None = None
        self._made: dict[str, asyncio.Event] = {}
        self._shelving = asyncio.Lock()

    async def open(self) -> None:
        """Clear what a killed agent left, and begin to work."""
        try:
            for name in await asyncio.to_thread(self._shelf.open):
                _log.info("removed what an earlier agent left half done", template=name)
        except OSError as exc:
            _log.warning("templates cannot be kept on this disk", error=str(exc))
        self._worker = asyncio.get_running_loop().create_task(self._work(), name="template-maker")

    async def close(self) -> None:
        """Stop working and let go of the memory. VMs in use keep what they map."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
            if not self._worker.cancelled() and (error := self._worker.exception()):
                _log.error("the maker of templates had stopped", error=repr(error))
            self._worker = None
        for template in self._loaded.values():
            template.close()
        self._loaded.clear()

    async def find(self, key: TemplateKey) -> tuple[SealedTemplate | None, str]:
        """Return a template, or None and why there is none; one that is missing is then made."""
        digest = key.digest
        async with self._turn.setdefault(digest, asyncio.Lock()):
            if digest not in self._loaded and self._shelf.has(digest):
                await self._load(digest)
        template = self._loaded.get(digest)
        if template is not None:
            self._loaded[digest] = self._loaded.pop(digest)  # the most recently used is last
            self._shelf.touch(digest)
            return template, f"template {digest[:12]} for {key}"
        return None, self._want(key)

    async def made(self, key: TemplateKey) -> bool:
        """Ask for a template and wait until it was made or given up; True when it is there."""
        while (await self.find(key))[0] is None and key.digest in self._queued:
            await self._made.setdefault(key.digest, asyncio.Event()).wait()
        return key.digest in self._loaded

    async def drop(self, template: SealedTemplate, why: str) -> None:
        """Never use this template again, here and on disk; a new one is made at the next need."""
        if self._loaded.get(template.digest) is not template:
            return  # dropped by another VM's start, or by its age; what is there now is a newer one
        _log.warning("dropped a template", template=template.digest, reason=why)
        self._failures.setdefault(template.digest, []).append(why)
        del self._loaded[template.digest]
        template.close()
        await self._remove(template.digest)

    def proven(self, template: SealedTemplate) -> None:
        """Take note that a VM was restored from it: what failed before is of no account."""
        self._failures.pop(template.digest, None)

    async def prune(self) -> None:
        """Remove from the disk what nobody used for long, and what it has no room for.

        Those in memory stay in use: that costs the next agent a boot, and nothing else.
        """
        async with self._shelving:
            try:
                await _to_its_end(self._prune, frozenset())
            except OSError as exc:
                _log.warning("unused templates were not removed", error=str(exc))

    # -- inner works --

    async def _load(self, digest: str) -> None:
        try:
            template = await asyncio.to_thread(self._shelf.load, digest, self._tsc_khz)
        except NotFound:
            return
        except VkError as exc:
            _log.warning("dropped a template", template=digest, reason=str(exc))
            self._failures.setdefault(digest, []).append(str(exc))
            await self._remove(digest)
            return
        self._keep(template)

    async def _remove(self, digest: str) -> None:
        try:
            await asyncio.to_thread(self._shelf.remove, digest)
        except OSError as exc:
            # It is checked at each load, so it will be noticed again.
            _log.warning("a template cannot be removed", template=digest, error=str(exc))

    def _keep(self, template: SealedTemplate) -> None:
        self._loaded[template.digest] = template
        while len(self._loaded) > _MAX_LOADED:
            self._loaded.pop(next(iter(self._loaded))).close()

    def _want(self, key: TemplateKey) -> str:
        """Have a template made; return why there is none yet."""
        digest = key.digest
        failures = self._failures.get(digest, [])
        if len(failures) >= _MAX_FAILURES:
            return f"the template for {key} was given up: {failures[-1]}"
        if digest not in self._queued:
            self._queued.add(digest)
            self._wanted.put_nowait(key)
        before = f" (the last one failed: {failures[-1]})" if failures else ""
        return f"the template for {key} is being made{before}"

    async def _work(self) -> None:
        while True:
            key = await self._wanted.get()
            try:
                await self._make(key)
            except (VkError, OSError) as exc:
                _log.warning("a template could not be made", shape=str(key), error=str(exc))
                self._failures.setdefault(key.digest, []).append(str(exc))
            finally:
                self._queued.discard(key.digest)
                self._made.pop(key.digest, asyncio.Event()).set()

    async def _make(self, key: TemplateKey) -> None:
        start = time.monotonic()
        template = await self._maker.make(key)
        self._keep(template)
        _log.info(
            "made a template",
            template=key.digest,
            shape=str(key),
            seconds=round(time.monotonic() - start, 2),
        )
        # In use from here on. That it cannot be kept costs the next agent a boot, and nothing else.
        try:
            async with self._shelving:
                await asyncio.to_thread(self._make_room, key.digest)
                await _to_its_end(self._shelf.save, template, self._tsc_khz)
        except (VkError, OSError) as exc:
            _log.warning("a template is not kept on disk", template=key.digest, error=str(exc))

    def _make_room(self, digest: str) -> None:
        """Make room for a template. Raises Exhausted when there is none to be made."""
        self._prune(frozenset({digest}))
        minimum = self._settings.template_min_free_bytes
        if self._shelf.free_bytes() < minimum:
            raise Exhausted(
                f"less than {minimum} bytes are free in {self._settings.state_dir}, so no "
                "template is written"
            )

    def _prune(self, keep: frozenset[str]) -> None:
        victims = choose_victims(
            self._shelf.entries(),
            keep=keep,
            now=time.time(),
            space_bytes=self._settings.template_space_bytes,
            missing_bytes=self._settings.template_min_free_bytes - self._shelf.free_bytes(),
        )
        for victim in victims:
            _log.info("removed a template, long unused or to make room", template=victim)
            self._shelf.remove(victim)


async def _to_its_end(work: Callable[..., None], *args: object) -> None:
    """Run it in a thread; when cancelled, end no sooner than the thread does.

    A thread that is left behind would write in the folder of the next agent.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
