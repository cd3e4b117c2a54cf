"""The guest that shows whether KVM really runs guests here."""

from __future__ import annotations

import asyncio
import shutil

from vk_provider.agent.hypervisor.accelerator import PROBE_S
from vk_provider.agent.hypervisor.boot import Host, Request, launch
from vk_provider.agent.hypervisor.command_line import Accelerator
from vk_provider.agent.hypervisor.spec import HypervisorSettings
from vk_provider.common.errors import DeadlineExceeded

PROBE_GROUP = "vk-probe"


async def boot_under_kvm(host: Host, settings: HypervisorSettings, tsc_khz: int) -> None:
    """Boot a guest under KVM until its agent opens its port. Raises VkError when it does not."""
    run_dir = settings.run_dir / PROBE_GROUP
    run_dir.mkdir(exist_ok=True, mode=0o700)
    request = Request(
        name=PROBE_GROUP,
        accelerator=Accelerator("kvm", 0, tsc_khz),
        vcpus=1,
        ram_mib=256,
        uid=settings.service_uid,
        netns=None,
        tap_fd=None,
        run_dir=run_dir,
    )
    machine = launch(host, request, lambda _: None)
    try:
        await machine.connect(PROBE_S)
        opened = machine.expect("VSERPORT_CHANGE", id="control", open=True)
        await machine.qmp.execute("cont")
        async with asyncio.timeout(PROBE_S):
            await machine.unless_ended(_wait_for(opened))
    except TimeoutError as exc:
        raise DeadlineExceeded("its kernel never came up") from exc
    finally:
        machine.process.kill()
        await machine.kill()
        shutil.rmtree(run_dir, ignore_errors=True)


async def _wait_for(opened: asyncio.Future[dict[str, object]]) -> None:
    await opened
