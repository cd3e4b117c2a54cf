"""The node process: makes the rooms' objects, gives each what it stands on, and runs them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.cli.credentials import Credentials, open_client
from vk_provider.cli.settings import NodeProcessSettings
from vk_provider.common.clock import Clock, SystemClock
from vk_provider.common.errors import Unavailable
from vk_provider.common.logging import get_logger
from vk_provider.kube.client_ca import load_client_ca
from vk_provider.kube.events import EventRecorder
from vk_provider.kube.objects import ObjectSource
from vk_provider.kube.serving_certificate import ServingCertificate
from vk_provider.kubelet_api.measured_runtime import MeasuredRuntime
from vk_provider.kubelet_api.server import KubeletServer
from vk_provider.kubelet_api.sources import KubeletApiSettings
from vk_provider.node.controller import NodeController
from vk_provider.node.settings import KUBELET_VERSION
from vk_provider.pods.manager import PodManager
from vk_provider.pods.settings import PodSettings
from vk_provider.runtime.api import Runtime
from vk_provider.runtime.grpc_client import AgentClient

_LAST_EVENTS_S = 1.0

log = get_logger("node.process")


async def run_node(settings: NodeProcessSettings) -> None:
    """Be the node until cancelled; pods go on without it."""
    clock = SystemClock()
    credentials = await open_client(settings, clock)
    try:
        async with AgentClient(f"unix:{settings.agent_socket}") as runtime:
            await be_node(settings, credentials, MeasuredRuntime(runtime), clock, _forever)
    finally:
        await credentials.client.close()


async def _forever() -> None:
    await asyncio.Event().wait()


async def be_node(
    settings: NodeProcessSettings,
    credentials: Credentials,
    runtime: Runtime,
    clock: Clock,
    work: Callable[[], Awaitable[None]],
) -> None:
    """Be the node, registered and running its pods, for as long as `work` takes."""
    client = credentials.client
    recorder = EventRecorder(client, settings.node.name, clock)
    objects = ObjectSource(client, clock)
    node = NodeController(client, runtime, recorder, settings.node, clock)
    async with asyncio.TaskGroup() as tasks:
        running: list[asyncio.Task[None]] = []

        def start(task: Coroutine[Any, Any, None], name: str) -> None:
            running.append(tasks.create_task(task, name=name))

        start(recorder.run(), "events")
        start(objects.run(), "objects")
        start(node.run(), "node")
        if credentials.certificate is not None:
            start(credentials.certificate.run(client), "client certificate renewal")
        host = await node.wait_host()
        pods = PodManager(
            client,
            runtime,
            recorder,
            objects,
            node,
            await _pod_settings(settings.pods, host, objects, node),
            clock,
        )
        objects.on_change = pods.object_changed
        serving = ServingCertificate(
            client,
            settings.pki_dir,
            settings.node.name,
            [settings.node.name, *node.addresses],
            clock,
            client_ca_pem=await load_client_ca(
                client, file=settings.client_ca_file, kubeconfig=credentials.kubeconfig
            ),
        )
        node.on_change = lambda: serving.set_names([settings.node.name, *node.addresses])
        start(serving.run(), "serving certificate")
        server = KubeletServer(
            KubeletApiSettings(
                node_name=settings.node.name,
                listen_address=settings.listen_address,
                port=settings.node.kubelet_port,
                healthz_port=settings.healthz_port,
                version=KUBELET_VERSION,
            ),
            serving.ssl_context,
            pods=pods,
            runtime=runtime,
            reviewer=client,
            clock=clock,
        )
        start(server.run(), "kubelet API")
        # Admission and volumes look at the Node, so it comes first.
        await node.wait_registered()
        start(pods.run(), "pods")
        log.info("running", node=settings.node.name, accelerator=host.accelerator)
        try:
            await work()
        finally:
            # Before the tasks are cancelled, the recorder's among them.
            await recorder.flush(_LAST_EVENTS_S)
        for each in running:
            each.cancel()


async def _pod_settings(
    settings: PodSettings, host: pb.HostInfo, objects: ObjectSource, node: NodeController
) -> PodSettings:
    dns = settings.cluster_dns or await _find_dns(objects, node)
    return dataclasses.replace(settings, cluster_dns=dns, memory_capacity_bytes=host.memory_bytes)


async def _find_dns(objects: ObjectSource, node: NodeController) -> tuple[str, ...]:
    """Return the addresses of the cluster's DNS Service, () where there is none.

    Waits while the API server is away: what is not found now would be missing in every pod until
    the next start, and no pod is started before the Node is registered anyway.
    """
    try:
        services = await objects.services("kube-system")
    except Unavailable:
        await node.wait_registered()
        try:
            services = await objects.services("kube-system")
        except Unavailable as exc:
            log.warning("can't look for the cluster's DNS", error=str(exc))
            return ()
    for service in services:
        if service["metadata"]["name"] == "kube-dns":
            addresses = service["spec"].get("clusterIPs") or [service["spec"].get("clusterIP")]
            found = tuple(a for a in addresses if a and a != "None")
            log.info("found the cluster's DNS", addresses=list(found))
            return found
    log.warning("no Service kube-system/kube-dns; pods use the host's DNS (--cluster-dns)")
    return ()
