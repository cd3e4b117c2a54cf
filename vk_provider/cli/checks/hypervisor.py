"""What runs the microVMs: asked of the agent, or found out by booting a guest."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vk_provider.agent.agent import find_guest_image
from vk_provider.agent.hypervisor.accelerator import qemu_version
from vk_provider.agent.hypervisor.guest_image import GuestImage
from vk_provider.agent.hypervisor.hypervisor import Hypervisor
from vk_provider.agent.hypervisor.spec import HypervisorSettings
from vk_provider.agent.settings import AgentSettings
from vk_provider.cli.agent_client import open_runtime
from vk_provider.cli.checks.model import Finding, doubtful, failed, ok
from vk_provider.common.errors import VkError
from vk_provider.runtime.api import Runtime

_QEMU = "qemu-system-x86_64"
_KVM = "hardware acceleration (KVM)"


async def check_hypervisor(socket: Path, guest_image: Path | None) -> list[Finding]:
    """Look at QEMU, the guest image and KVM, by way of the agent where one runs."""
    findings = []
    try:
        findings.append(ok("QEMU", await qemu_version(_QEMU)))
    except VkError as exc:
        return [failed("QEMU", str(exc), "apt-get install qemu-system-x86")]
    try:
        async with open_runtime(socket) as runtime:
            return [*findings, *await _ask(runtime, socket)]
    except VkError as exc:
        findings.append(
            doubtful("agent", str(exc), "start it with `vk-provider agent`, or `vk-provider run`")
        )
    try:
        guest = find_guest_image(AgentSettings(guest_image=guest_image))
    except VkError as exc:
        mend = "build one with hack/guest-image, or name it with --guest-image"
        return [*findings, failed("guest image", str(exc), mend)]
    findings.append(ok("guest image", f"kernel {guest.kernel_release} in {guest.directory}"))
    return [*findings, await _boot(guest)]


async def _ask(runtime: Runtime, socket: Path) -> list[Finding]:
    host = await runtime.host_info()
    network = (
        ok("pod network", host.network_message or "ready")
        if host.network_ready
        else doubtful("pod network", host.network_message, "it is ready once the node has joined")
    )
    return [
        ok("agent", f"version {host.agent_version} answers at {socket}"),
        _judge(host.accelerator, host.accelerator_reason),
        network,
    ]


async def _boot(guest: GuestImage) -> Finding:
    with tempfile.TemporaryDirectory(prefix="vk-doctor-", dir="/run") as folder:
        settings = HypervisorSettings(
            Path(folder) / "state", Path(folder) / "run", cgroup="vk-provider-doctor"
        )
        try:
            hypervisor = Hypervisor(settings, guest)
            await hypervisor.open()
        except VkError as exc:
            return failed(_KVM, str(exc), "microVMs can't run on this host as it is")
        found = hypervisor.accelerator
        await hypervisor.close()
    return _judge(found.name, found.reason)


def _judge(name: str, reason: str) -> Finding:
    if name == "kvm":
        return ok(_KVM, reason)
    return doubtful(
        _KVM,
        f"emulation (TCG) is used: {reason}",
        "pods run, several times slower; take a host with hardware virtualization, or switch it "
        "on in its firmware or hypervisor",
    )
