"""`vk-provider node leave` as a process: the node a last time, until its pods are gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vk_provider.cli.agent_client import open_runtime
from vk_provider.cli.credentials import open_client
from vk_provider.cli.node_process import be_node
from vk_provider.cli.settings import NodeProcessSettings
from vk_provider.common.clock import SystemClock
from vk_provider.kube.client import KubeClient
from vk_provider.kube.pki import forget
from vk_provider.kubelet_api.measured_runtime import MeasuredRuntime
from vk_provider.node.leaving import Departure
from vk_provider.pods.orphans import OrphanCollector

_USER_AGENT = "vk-provider/leave"


async def leave_cluster(
    settings: NodeProcessSettings,
    admin_kubeconfig: Path | None,
    timeout_s: float,
    say: Callable[[str], None],
) -> None:
    """Leave; raises what stands in the way, and may be repeated then."""
    clock = SystemClock()
    admin: KubeClient | None = None
    if admin_kubeconfig is not None:
        admin = await KubeClient.from_kubeconfig(
            admin_kubeconfig, user_agent=_USER_AGENT, clock=clock
        )
    try:
        async with open_runtime(settings.agent_socket) as agent:
            credentials = await open_client(settings, clock)
            departure = Departure(credentials.client, settings.node.name, clock, say)

            async def work() -> None:
                await departure.cordon()
                await departure.empty(timeout_s)

            try:
                if await departure.is_member():
                    runtime = MeasuredRuntime(agent)
                    await be_node(settings, credentials, runtime, clock, work)
                # Not before: the node would register again.
                await departure.remove(admin)
            finally:
                await credentials.client.close()
            await OrphanCollector(agent, clock, lambda _: False).sweep_now()
            say("No pod of it is left on this host")
    finally:
        if admin is not None:
            await admin.close()
    forget(settings.pki_dir)
    say(f"Its certificates in {settings.pki_dir} are removed")
    if settings.access.kubeconfig not in {None, settings.pki_dir / "kubeconfig"}:
        say(f"{settings.access.kubeconfig} is yours, and stays")
