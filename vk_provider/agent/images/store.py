"""The image store: pulls, finds, lists, removes and collects images."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator, Set
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path

from vk_provider._pb.sandbox_pb2 import Image, PullImageProgress, RegistryAuth
from vk_provider.agent.images import collector, rootfs
from vk_provider.agent.images.catalogue import Catalogue
from vk_provider.agent.images.jobs import Job, KeyedLocks, Progress
from vk_provider.agent.images.layout import layout_bytes, read_config
from vk_provider.agent.images.manifests import (
    Manifest,
    choose_platform,
    digest_of,
    parse_config,
    parse_manifest,
)
from vk_provider.agent.images.references import Reference, parse_reference
from vk_provider.agent.images.settings import ImageSettings
from vk_provider.agent.images.skopeo import Skopeo
from vk_provider.agent.images.stored import DISK_FILE, FsUsage, StoredImage
from vk_provider.agent.images.watch import on_write
from vk_provider.common.clock import Clock, SystemClock
from vk_provider.common.errors import Exhausted, Invalid, Unavailable, VkError
from vk_provider.common.logging import get_logger

_log = get_logger("agent.images")


class ImageStore:
    """All images of this host.

    directory: where they are kept. Use: `open`, the rest, `close` (which gives pulls up).
    """

    def __init__(
        self, directory: Path, settings: ImageSettings, *, clock: Clock | None = None
    ) -> None:
        self._directory = directory
        self._catalogue = Catalogue(directory)
        self._skopeo = Skopeo(settings)
        self._clock = clock or SystemClock()
        self._slots = asyncio.Semaphore(settings.parallel_pulls)
        self._jobs: dict[tuple[str, bytes], Job] = {}
        self._making = KeyedLocks()
        self._stack = AsyncExitStack()
        self._tasks: asyncio.TaskGroup | None = None

    async def open(self) -> None:
        """Find the images on the disk. Raises Unavailable when that cannot be done."""
        try:
            await asyncio.to_thread(self._catalogue.load)
        except OSError as exc:
            raise Unavailable(f"the images in {self._directory} cannot be read: {exc}") from exc
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())

    async def close(self) -> None:
        """Give up pulls that are under way."""
        for job in self._jobs.values():
            if job.task is not None:
                job.task.cancel()
        await self._stack.aclose()
        self._tasks = None

    async def pull(
        self, image: str, auth: RegistryAuth | None = None
    ) -> AsyncGenerator[PullImageProgress, None]:
        """Fetch an image, or see that it is here; yield progress, at last with `image` set.

        The registry is asked each time. Callers of the same image with the same credentials
        share one pull; it is given up when the last of them closes its iterator. Raises
        Invalid, NotFound, Unauthenticated, PermissionDenied, Exhausted, Unavailable.
        """
        reference = parse_reference(image)
        started = self._clock.monotonic()
        key = (str(reference), _fingerprint(auth))
        job = self._jobs.get(key) or self._start(key, reference, auth)
        job.users += 1
        try:
            async with aclosing(job.watch()) as changes:
                async for progress in changes:
                    yield PullImageProgress(
                        phase=progress.phase,
                        bytes_done=progress.bytes_done,
                        bytes_total=progress.bytes_total,
                    )
        finally:
            job.users -= 1
            if job.users == 0 and not job.done:
                self._jobs.pop(key, None)
                if job.task is not None:
                    job.task.cancel()
        stored = job.result()
        yield PullImageProgress(
            phase="done",
            bytes_done=job.progress.bytes_total,
            bytes_total=job.progress.bytes_total,
            image=to_proto(stored),
            duration_ns=round((self._clock.monotonic() - started) * 1e9),
        )

    def resolve(self, image: str) -> StoredImage | None:
        """Return the image of an id, name with tag or name with digest, if it is here."""
        return self._catalogue.find(image)

    def list(self) -> list[StoredImage]:
        """Return all images, the first pulled first."""
        return self._catalogue.all()

    async def remove(self, image: str) -> None:
        """Remove an image with all its names; one that is not here is fine.

        VMs that have it attached keep it. Raises Unavailable when the disk refuses.
        """
        stored = self.resolve(image)
        if stored is not None:
            await self._remove(stored)

    def mark_used(self, image_ref: str) -> None:
        """Note that a container is made from the image: it is collected later than others."""
        try:
            self._catalogue.mark_used(image_ref, self._clock.now_ns())
        except OSError as exc:
            _log.warning("an image's use could not be noted", image=image_ref, error=str(exc))

    def usage(self) -> FsUsage:
        """Return the figures of the images' file system."""
        return self._catalogue.usage()

    async def collect(
        self,
        high_percent: int = 80,
        low_percent: int = 75,
        in_use: Set[str] = frozenset(),
    ) -> collector.Collected:
        """Remove the longest unused images if the disk is `high_percent` full, to `low_percent`.

        in_use: ids that must stay. When `freed_bytes` is less than `wanted_bytes` in the answer,
        there was nothing more to remove.
        """
        chosen, wanted = collector.plan(
            self.list(), self.usage(), in_use, self._clock.now_ns(), high_percent, low_percent
        )
        removed: list[StoredImage] = []
        for image in chosen:
            try:
                await self._remove(image)
            except VkError as exc:  # the next one may go
                _log.warning("an unused image stays", image=image.image_ref, why=str(exc))
                continue
            removed.append(image)
            _log.info("removed an unused image", image=image.image_ref, names=image.repo_tags)
        return collector.Collected(
            [image.image_ref for image in removed],
            sum(image.size_bytes for image in removed),
            wanted,
        )

    def _start(
        self, key: tuple[str, bytes], reference: Reference, auth: RegistryAuth | None
    ) -> Job:
        if self._tasks is None:
            raise Unavailable("the image store is not open")
        job = self._jobs[key] = Job()
        job.task = self._tasks.create_task(
            self._run(key, job, reference, auth), name=f"pull {reference}"
        )
        return job

    async def _run(
        self, key: tuple[str, bytes], job: Job, reference: Reference, auth: RegistryAuth | None
    ) -> None:
        try:
            job.finish(await self._pull(job, reference, auth))
        except OSError as exc:
            job.fail(_disk_error(str(reference), exc))
        except asyncio.CancelledError:
            job.fail(Unavailable(f"the pull of {reference} was given up"))
            raise
        except Exception as exc:  # noqa: BLE001  told to all who wait, and raised there
            job.fail(exc)
        finally:
            if self._jobs.get(key) is job:
                del self._jobs[key]

    async def _pull(self, job: Job, reference: Reference, auth: RegistryAuth | None) -> StoredImage:
        async with self._slots:
            manifest, with_digest = await self._resolve(reference, auth)
            async with self._making.of(manifest.config_digest):
                image = self._catalogue.by_id(manifest.config_digest)
                if image is None:
                    image = await self._make(job, reference, manifest, auth)
                return await asyncio.to_thread(
                    self._catalogue.give_names, image.image_ref, reference.tagged, with_digest
                )

    async def _resolve(
        self, reference: Reference, auth: RegistryAuth | None
    ) -> tuple[Manifest, str]:
        """Return the manifest for our platform, and the full name with the digest asked for."""
        fetch = partial(self._skopeo.raw_manifest, auth=auth, domain=reference.domain)
        name = str(reference)
        data = await fetch(name)
        digest = reference.digest or digest_of(data)
        chosen = choose_platform(data, name)
        if chosen is not None:
            data = await fetch(reference.at(chosen))
        expected = chosen or digest
        if expected.startswith("sha256:") and digest_of(data) != expected:
            raise Invalid(f"the registry sent another manifest than {reference.at(expected)}")
        return parse_manifest(data, name), reference.at(digest)

    async def _make(
        self, job: Job, reference: Reference, manifest: Manifest, auth: RegistryAuth | None
    ) -> StoredImage:
        name, total = str(reference), manifest.layer_bytes
        available = self.usage().available_bytes
        if total > available:
            raise Exhausted(
                f"failed to pull image {name!r}: its layers take {total} bytes, and the disk of "
                f"{self._directory} has {available} left"
            )
        work = await asyncio.to_thread(self._catalogue.work_directory)
        layout, root, home = work / "layout", work / "root", work / "image"

        def tell() -> None:
            job.tell(Progress("fetching", min(layout_bytes(layout), total), total))

        try:
            tell()
            await asyncio.to_thread(layout.mkdir)
            with on_write(layout, tell):
                await self._skopeo.copy(reference, manifest.digest, layout, auth)
            job.tell(Progress("unpacking", total, total))
            config = parse_config(await asyncio.to_thread(read_config, layout, name), name)
            await rootfs.unpack(layout, root, name)
            passwd = await asyncio.to_thread(rootfs.read_text, root, "etc/passwd")
            group = await asyncio.to_thread(rootfs.read_text, root, "etc/group")
            await asyncio.to_thread(home.mkdir)
            disk = home / DISK_FILE
            await rootfs.make_disk(root, disk, name)
            now = self._clock.now_ns()
            size = (await asyncio.to_thread(disk.stat)).st_size
            image = StoredImage(
                image_ref=manifest.config_digest,
                disk=disk,
                config=config,
                passwd=passwd,
                group=group,
                repo_tags=[],
                repo_digests=[],
                size_bytes=size,
                pulled_at_ns=now,
                last_used_at_ns=now,
            )
            return await asyncio.to_thread(self._catalogue.add, image, home)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))

    async def _remove(self, image: StoredImage) -> None:
        async with self._making.of(image.image_ref):
            if self._catalogue.by_id(image.image_ref) is None:
                return
            try:
                await asyncio.to_thread(self._catalogue.remove, image)
            except OSError as exc:
                raise Unavailable(f"image {image.image_ref} cannot be removed: {exc}") from exc


def to_proto(image: StoredImage) -> Image:
    """Return the image as the node sees it; whether it is in use is the caller's to say."""
    return Image(
        image_ref=image.image_ref,
        repo_tags=image.repo_tags,
        repo_digests=image.repo_digests,
        size_bytes=image.size_bytes,
        pulled_at_ns=image.pulled_at_ns,
        last_used_at_ns=image.last_used_at_ns,
        user=image.config.user,
        uid=image.uid,
    )


def _fingerprint(auth: RegistryAuth | None) -> bytes:
    """Tell credentials apart without keeping them."""
    data = b"" if auth is None else auth.SerializeToString(deterministic=True)
    return hashlib.blake2b(data, key=_SALT).digest()


_SALT = os.urandom(32)


def _disk_error(image: str, error: OSError) -> VkError:
    sentence = f"failed to pull image {image!r}: {error}"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Exhausted(sentence) if full else Unavailable(sentence)
