"""One agent from its start to its end: parts opened in order, records taken up, then served."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path

import grpc.aio
import psutil

from vk_provider._pb.sandbox_pb2_grpc import add_SandboxServiceServicer_to_server
from vk_provider.agent.adoption import adopt_all
from vk_provider.agent.context import Context
from vk_provider.agent.events import EventHub
from vk_provider.agent.host_info import host_cpus
from vk_provider.agent.hypervisor import GuestImage, Hypervisor, HypervisorSettings
from vk_provider.agent.image_collection import collect_images
from vk_provider.agent.images import ImageSettings, ImageStore
from vk_provider.agent.machines import QemuMachines
from vk_provider.agent.metering import Metering
from vk_provider.agent.network import NetworkSettings, PodNetwork
from vk_provider.agent.ports import MachinesInfo
from vk_provider.agent.preparing import prepare_usual_shapes
from vk_provider.agent.sandboxes import remove
from vk_provider.agent.server import SERVER_OPTIONS, SandboxServer
from vk_provider.agent.settings import AgentSettings
from vk_provider.agent.shapes import table_for_host
from vk_provider.agent.spares import Spares
from vk_provider.agent.store import Store
from vk_provider.common.clock import SystemClock
from vk_provider.common.errors import FailedPrecondition, NotFound
from vk_provider.common.logging import get_logger

_log = get_logger("agent")

_STOP_GRACE_S = 1.0


async def run_agent(settings: AgentSettings, ready: Callable[[], None]) -> None:
    """Serve until cancelled; VMs go on after that. `ready` is called once the socket answers.

    Raises kinds of error that say why the agent can't run here.
    """
    with _alone(settings):
        async with _parts(settings) as (context, info):
            await adopt_all(context)
            metering = Metering(context)
            context.spawn(metering.run(), "metering")
            if settings.templates and settings.spare_vms:
                context.spares = Spares(context)
            async with _serving(settings.socket_path, SandboxServer(context, info, metering)):
                _log.info(
                    "ready",
                    socket=str(settings.socket_path),
                    accelerator=info.accelerator,
                    accelerator_reason=info.accelerator_reason,
                    sandboxes=len(context.sandboxes),
                )
                ready()
                context.spawn(prepare_usual_shapes(context), "templates of the usual shapes")
                context.spawn(collect_images(context), "image garbage collection")
                if context.spares is not None:
                    context.spawn(context.spares.run(), "VMs kept ready")
                await asyncio.get_running_loop().create_future()


async def remove_everything(settings: AgentSettings) -> None:
    """Remove every sandbox of this agent's records, every leftover and the built-in network."""
    with _alone(settings):
        async with _parts(settings) as (context, _):
            await adopt_all(context)
            for sandbox in list(context.sandboxes.values()):
                await remove(context, sandbox)
            await context.network.remove_host_setup()


def find_guest_image(settings: AgentSettings) -> GuestImage:
    """Return the guest image to boot: the one given, else the newest complete one in the cache.

    Raises NotFound, Invalid.
    """
    if settings.guest_image is not None:
        return GuestImage.load(settings.guest_image)
    # Names with a dot in front are builds under way.
    manifests = list(settings.guest_image_cache.glob("[!.]*/manifest.json"))
    if not manifests:
        raise NotFound(
            f"there is no guest image in {settings.guest_image_cache}; build one with "
            "hack/guest-image, or name its folder with --guest-image"
        )
    newest = max(manifests, key=lambda path: path.stat().st_mtime)
    return GuestImage.load(newest.parent)


@asynccontextmanager
async def _parts(settings: AgentSettings) -> AsyncIterator[tuple[Context, MachinesInfo]]:
    """Open the neighbours and own the agent's tasks; nothing of a VM ends with them."""
    clock = SystemClock()
    guest = find_guest_image(settings)
    hypervisor = Hypervisor(
        HypervisorSettings(
            state_dir=settings.state_dir / "hypervisor",
            run_dir=settings.run_dir / "hypervisor",
            templates=settings.templates,
        ),
        guest,
    )
    async with AsyncExitStack() as stack:
        store = stack.enter_context(closing(Store.open(settings.database)))
        stack.push_async_callback(hypervisor.close)
        await hypervisor.open()
        images = ImageStore(
            settings.images_dir, ImageSettings(registries_conf=settings.registries_conf)
        )
        await images.open()
        stack.push_async_callback(images.close)
        network = await _open_network(settings)
        accelerator = hypervisor.accelerator
        info = MachinesInfo(
            hypervisor=f"QEMU {accelerator.qemu_version}",
            accelerator=accelerator.name,
            accelerator_reason=accelerator.reason,
            guest_kernel=guest.kernel_release,
        )
        sizes = table_for_host(host_cpus() * 1000, psutil.virtual_memory().total)
        async with asyncio.TaskGroup() as tasks:
            context = Context(
                settings,
                store,
                QemuMachines(hypervisor),
                images,
                network,
                EventHub(clock),
                clock,
                sizes,
                tasks,
            )
            try:
                yield context, info
            finally:
                await _let_go(context)


async def _open_network(settings: AgentSettings) -> PodNetwork:
    network = PodNetwork(
        NetworkSettings(
            state_dir=settings.state_dir / "network",
            cni_conf_dir=settings.cni_conf_dir,
            cni_bin_dirs=settings.cni_bin_dirs,
        )
    )
    await network.open()
    if settings.pod_cidrs:
        await network.set_pod_cidrs(list(settings.pod_cidrs))
    return network


async def _let_go(context: Context) -> None:
    """End the agent's tasks and connections; the VMs live on."""
    await context.cancel_tasks()
    for sandbox in context.sandboxes.values():
        if sandbox.machine is not None:
            await sandbox.machine.vm.close()


@asynccontextmanager
async def _serving(socket: Path, service: SandboxServer) -> AsyncIterator[None]:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_SandboxServiceServicer_to_server(service, server)
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    socket.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
    finally:
        os.umask(before)
    try:
        yield
    finally:
        await server.stop(_STOP_GRACE_S)
        socket.unlink(missing_ok=True)


@contextmanager
def _alone(settings: AgentSettings) -> Iterator[None]:
    """Hold the state directory: two agents with the same records would undo each other's work."""
    if os.geteuid() != 0:
        raise FailedPrecondition(
            "the agent makes network namespaces, control groups and disks: run it as root "
            "(QEMU itself runs as no root)"
        )
    for directory in (settings.state_dir, settings.run_dir):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
    lock = os.open(settings.state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock)
        raise FailedPrecondition(
            f"another agent works with {settings.state_dir}; stop it first, or give this one a "
            "state directory of its own"
        ) from exc
    try:
        yield
    finally:
        os.close(lock)
