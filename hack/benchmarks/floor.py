"""The floor: a bare VM, started by the same hypervisor code, until its guest agent answers."""

from __future__ import annotations

import itertools
import shutil
import time
from pathlib import Path
from types import TracebackType

from hack.benchmarks.bed import Bed
from vk_provider.agent.hypervisor import GuestImage, Hypervisor, HypervisorSettings, Vm, VmSpec

_SMALLEST_VCPUS = 1
_SMALLEST_MIB = 512


class BareVms:
    """Starts VMs of the smallest shape without network, disks or containers; one at a time."""

    def __init__(self, bed: Bed, *, template: bool) -> None:
        self._directory = bed.settings.run_directory / "floor"
        self._template = template
        # Templates of its own: the agent's belong to the agent that runs.
        state = bed.settings.directory / "floor"
        settings = HypervisorSettings(
            state_dir=state, run_dir=self._directory / "hypervisor", templates=template
        )
        self._hypervisor = Hypervisor(settings, GuestImage.load(bed.builds.guest_image))
        self._numbers = itertools.count()

    async def __aenter__(self) -> BareVms:
        self._directory.mkdir(parents=True, exist_ok=True)
        await self._hypervisor.open()
        if self._template and not await self._hypervisor.prepare(_SMALLEST_VCPUS, _SMALLEST_MIB):
            raise SystemExit("no template could be made for the floor; the log above says why")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._hypervisor.close()
        shutil.rmtree(self._directory)

    async def start(self) -> Vm:
        """Start a VM; it answers when this returns."""
        name = f"{next(self._numbers):032x}"
        run_dir: Path = self._directory / name
        run_dir.mkdir()
        spec = VmSpec(
            sandbox_id=name,
            vcpus=_SMALLEST_VCPUS,
            memory_mib=_SMALLEST_MIB,
            cpu_milli=250,
            uid=3_000_000 + int(name, 16),
            netns=None,
            tap_fd=None,
            run_dir=run_dir,
            allow_template=self._template,
        )
        return await self._hypervisor.start(spec, lambda _: None)

    async def seconds_to_answer(self) -> float:
        """Start a VM, end it, and return how long it took to answer."""
        began = time.monotonic()
        vm = await self.start()
        took = time.monotonic() - began
        await vm.kill()
        return took
