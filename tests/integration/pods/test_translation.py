"""A pod's spec, translated by the node, as its container finds it in a real microVM."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.podspecs import FakeObjects, FakeToken, container, make_pod
from tests.support.real_agent import RealAgent, real_agent
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import SystemClock
from vk_provider.pods.container_config import make_container_config
from vk_provider.pods.environment import make_environment
from vk_provider.pods.hooks import run_hook
from vk_provider.pods.hosts_file import make_hosts_file
from vk_provider.pods.probes.manager import ProbeManager, ProbeUpdate
from vk_provider.pods.probes.model import ProbeKind, ProbeResult
from vk_provider.pods.sandbox_config import make_run_sandbox_request
from vk_provider.pods.settings import PodSettings
from vk_provider.pods.volumes.build import build_volumes
from vk_provider.pods.volumes.refresher import VolumeRefresher
from vk_provider.runtime.exec_sync import exec_sync
from vk_provider.runtime.grpc_client import AgentClient
from vk_provider.runtime.ids import container_id, sandbox_id

pytestmark = pytest.mark.vm

WAIT_S = 60
SETTINGS = PodSettings(cluster_dns=("192.0.2.10",), cluster_domain="cluster.test")
# Hosts may be slow: time-outs and thresholds are no part of these tests.
PATIENT = {"periodSeconds": 1, "timeoutSeconds": WAIT_S, "failureThreshold": WAIT_S}
ALLOCATABLE = {"cpu": "4", "memory": "8Gi"}


def spec(uid: str) -> Any:
    volumes = [
        {"name": "settings", "configMap": {"name": "settings", "defaultMode": 0o640}},
        {
            "name": "token",
            "projected": {
                "defaultMode": 0o644,
                "sources": [
                    {"serviceAccountToken": {"path": "token"}},
                    {
                        "downwardAPI": {
                            "items": [
                                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
                            ]
                        }
                    },
                ],
            },
        },
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
    ]
    mounts = [
        {"name": "settings", "mountPath": "/settings"},
        {"name": "token", "mountPath": "/token"},
        {"name": "disk", "mountPath": "/disk"},
        {"name": "disk", "mountPath": "/part", "subPathExpr": "$(POD)/part"},
        {"name": "memory", "mountPath": "/memory"},
    ]
    app = container(
        "app",
        command=["sh", "-c", "mkdir -p /disk/www && httpd -p 8080 -h /disk/www && sleep $(NAP)"],
        env=[
            {"name": "NAP", "value": "3600"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {
                "name": "COLOR",
                "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}},
            },
        ],
        ports=[{"name": "web", "containerPort": 8080}],
        volumeMounts=mounts,
        securityContext={"allowPrivilegeEscalation": False},
        readinessProbe={"httpGet": {"port": "web", "path": "/ready"}} | PATIENT,
        livenessProbe={"exec": {"command": ["true"]}} | PATIENT,
        startupProbe={"tcpSocket": {"port": "web"}} | PATIENT,
        lifecycle={"preStop": {"exec": {"command": ["touch", "/disk/stopping"]}}},
    )
    return make_pod(
        app,
        uid=uid,
        labels={"app": "web"},
        hostname="front",
        subdomain="shop",
        securityContext={
            "runAsUser": 1234,
            "runAsGroup": 1235,
            "fsGroup": 1236,
            "supplementalGroups": [1237],
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}],
        },
        volumes=volumes,
    )


class World:
    """One pod of that spec in a microVM, made as the node makes it."""

    def __init__(self, client: AgentClient) -> None:
        self.client = client
        self.pod = spec(str(uuid.uuid4()))
        self.app = self.pod["spec"]["containers"][0]
        self.sandbox = sandbox_id(self.pod["metadata"]["uid"], 0)
        self.container = container_id(self.sandbox, "app", 0)
        self.ip = ""
        self.started_at_ns = 0
        self.volumes: list[pb.Volume] = []
        self.objects = FakeObjects()
        self.objects.put_config_map("settings", {"color": "blue"})
        self.objects.token = FakeToken("secret-token")

    async def start(self, image: str) -> None:
        found = pb.Image()
        async for progress in self.client.pull_image(image):
            found = progress.image
        self.volumes = await build_volumes(self.pod, self.objects, allocatable=ALLOCATABLE)
        status = await self.client.run_sandbox(
            make_run_sandbox_request(
                self.pod,
                self.sandbox,
                0,
                self.volumes,
                host=await self.client.host_info(),
                settings=SETTINGS,
                annotations={},
            )
        )
        self.ip = status.ips[0]
        env = await make_environment(
            self.pod,
            self.app,
            self.objects,
            pod_ips=list(status.ips),
            host_ips=["192.0.2.1"],
            node_name="vk",
            allocatable=ALLOCATABLE,
            services=[],
        )
        config = make_container_config(
            self.pod,
            self.app,
            container_id=self.container,
            attempt=0,
            image_ref=found.image_ref,
            image=found,
            env=env,
            hosts_file=make_hosts_file(self.pod, list(status.ips), settings=SETTINGS),
            annotations={},
            settings=SETTINGS,
        )
        request = pb.CreateContainerRequest(sandbox_id=self.sandbox, config=config)
        await self.client.create_container(request)
        started = await self.client.start_container(self.container)
        assert started.state == pb.CONTAINER_RUNNING, started
        self.started_at_ns = started.started_at_ns

    async def sh(self, script: str) -> str:
        """Run a script in the container; return what it says."""
        result = await exec_sync(self.client, self.container, ["sh", "-c", script], WAIT_S)
        assert result.code == 0, result
        return result.stdout.decode().rstrip("\n")

    def event(self, *_: Any, **__: Any) -> None:
        """Events are not what is looked at here."""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAgent]:
    with real_agent(tmp_path_factory.mktemp("agent")) as running:
        yield running


@pytest_asyncio.fixture
async def world(agent: RealAgent) -> AsyncIterator[World]:
    async with AgentClient(agent.target) as client:
        world = World(client)
        try:
            await world.start(agent.busybox)
            yield world
        finally:
            await client.remove_sandbox(world.sandbox)


async def test_a_container_finds_what_its_pods_spec_says(world: World) -> None:
    say = world.sh
    assert await say("hostname") == "front"
    assert await say("id -u; id -g; id -G") == "1234\n1235\n1235 1236 1237"
    assert await say("echo $POD $CPU $COLOR") == "web 4 blue"
    assert f"{world.ip}\tfront.shop.shop.svc.cluster.test\tfront" in await say("cat /etc/hosts")
    assert "nameserver 192.0.2.10" in await say("cat /etc/resolv.conf")
    assert await say("cat /proc/sys/net/ipv4/ip_unprivileged_port_start") == "80"
    assert "NoNewPrivs:\t1" in await say("cat /proc/self/status")

    assert (
        await say("cat /settings/color; echo; stat -Lc '%a %g' /settings/color") == "blue\n640 1236"
    )
    assert await say("readlink /settings/color") == "..data/color"
    assert await say("stat -Lc '%a %u' /token/token; cat /token/token") == "640 1234\nsecret-token"
    assert await say("cat /token/labels") == 'app="web"'
    assert await say("touch /settings/x 2>/dev/null || echo read-only") == "read-only"

    assert await say("touch /disk/f /memory/f; stat -c %g /disk/f") == "1236"
    assert await say("echo hi > /part/f; cat /disk/web/part/f") == "hi"
    assert await say("df -k /memory | tail -1 | awk '{print $2}'") == "8192"


async def test_a_changed_object_is_seen_through_the_same_path(world: World) -> None:
    failures: list[str] = []
    refresher = VolumeRefresher(
        world.client,
        world.objects,
        SystemClock(),
        allocatable=lambda: ALLOCATABLE,
        on_error=lambda _, message: failures.append(message),
    )
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        running = group.create_task(refresher.run(), name="refresher")
        refresher.add_pod(world.pod, world.sandbox, world.volumes)
        before = await world.sh("readlink /settings/..data")
        world.objects.put_config_map("settings", {"color": "red", "size": "L"})
        refresher.object_changed("ConfigMap", "shop", "settings")
        # The guest swaps the link at once: whoever looks sees all of the old or all of the new.
        await world.sh(f"while [ $(readlink /settings/..data) = {before} ]; do usleep 10000; done")
        assert await world.sh("cat /settings/color /settings/size") == "redL"
        running.cancel()
    assert failures == []


async def test_probes_and_hooks_reach_the_container(world: World) -> None:
    uid = world.pod["metadata"]["uid"]
    updates: asyncio.Queue[ProbeUpdate] = asyncio.Queue()
    probes = ProbeManager(world.client, SystemClock(), recorder=world, on_result=updates.put_nowait)
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        running = group.create_task(probes.run(), name="probes")
        probes.add_pod(world.pod)
        probes.container_running(uid, "app", world.container, world.started_at_ns, world.ip)
        update = await updates.get()
        assert (update.kind, update.result) == (ProbeKind.STARTUP, ProbeResult.SUCCESS)
        assert not probes.is_ready(uid, "app", world.container)  # /ready is not there yet
        await world.sh("touch /disk/www/ready")
        update = await updates.get()
        assert (update.kind, update.result) == (ProbeKind.READINESS, ProbeResult.SUCCESS)
        assert probes.is_ready(uid, "app", world.container)
        assert probes.result(ProbeKind.LIVENESS, world.container) is ProbeResult.SUCCESS
        running.cancel()
    await run_hook(
        world.client,
        world.pod,
        world.app,
        world.container,
        world.app["lifecycle"]["preStop"],
        pod_ip=world.ip,
        timeout_s=WAIT_S,
        clock=SystemClock(),
    )
    assert await world.sh("ls /disk/stopping") == "/disk/stopping"
