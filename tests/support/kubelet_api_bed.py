"""The kubelet's API over plain HTTP on a fake runtime, with one pod and a reviewer of tokens."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.support.fake_clock import FakeClock
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.kubelet_api.exchange import StreamLimits
from vk_provider.kubelet_api.server import KubeletServer
from vk_provider.kubelet_api.sources import KubeletApiSettings
from vk_provider.runtime.fake import FakeRuntime
from vk_provider.runtime.fake_records import Executed, Program

Client = TestClient[web.Request, web.Application]

PROGRAM = Program(
    output=b"one\ntwo\nthree\n",
    execs={
        ("ls",): Executed(stdout=b"file\n", stderr=b"warning\n"),
        ("false",): Executed(code=3),
        ("sleep", "60"): Executed(run_s=60),
    },
)


class Reviewer:
    """Knows the tokens `admin` and `nobody`; admin may do everything."""

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        spec = body["spec"]
        if path.endswith("tokenreviews"):
            known = spec["token"] in {"admin", "nobody"}
            user = {"username": spec["token"], "groups": []}
            return {"status": {"authenticated": known, "user": user}}
        return {"status": {"allowed": spec["user"] == "admin"}}


@dataclass
class Entry:
    """One pod, whose container ids are its containers' names."""

    pod: dict[str, Any]
    sandbox_id: str = "sandbox"

    def container_id(self, name: str, previous: bool = False) -> str | None:
        return None if previous else name


@dataclass
class Pods:
    """The pods of the node."""

    entries: list[Entry] = field(default_factory=list)

    def pods(self) -> list[dict[str, Any]]:
        return [entry.pod for entry in self.entries]

    def find(self, namespace: str, name: str, uid: str = "") -> Entry | None:
        for entry in self.entries:
            meta = entry.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, name) and uid in {"", meta["uid"]}:
                return entry
        return None


@dataclass
class Bed:
    """What a test holds."""

    client: Client
    runtime: FakeRuntime
    clock: FakeClock
    pod: dict[str, Any]


def a_pod() -> dict[str, Any]:
    """Return the pod default/web: `app` runs, `term` runs on a terminal, `done` has ended."""
    running: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    states = {"app": running, "term": running, "done": {"terminated": {"exitCode": 0}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "default", "name": "web", "uid": "u1"},
        "spec": {"containers": [{"name": "app"}, {"name": "term", "tty": True}, {"name": "done"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {"name": name, "state": state, "containerID": f"vk://{name}"}
                for name, state in states.items()
            ],
        },
    }


@asynccontextmanager
async def kubelet_api(
    *, token: str = "admin", limits: StreamLimits | None = None
) -> AsyncGenerator[Bed, None]:
    """Serve the API on the loopback; requests carry `token`, "" for none."""
    clock = FakeClock()
    async with FakeRuntime(clock) as runtime:
        await _start_containers(runtime)
        pods = Pods([Entry(a_pod())])
        server = KubeletServer(
            KubeletApiSettings("n1", version="v1.37.2+test"),
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
            pods=pods,
            runtime=runtime,
            reviewer=Reviewer(),
            clock=clock,
            limits=limits,
        )
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        test_server = TestServer(server.application())
        await test_server.start_server(access_log=None)
        async with TestClient(test_server, headers=headers) as client:
            yield Bed(client, runtime, clock, pods.entries[0].pod)


async def _start_containers(runtime: FakeRuntime) -> None:
    runtime.program = lambda _: PROGRAM
    ref = "sha256:1"
    runtime.images["img"] = pb.Image(image_ref=ref)
    metadata = pb.PodMetadata(namespace="default", name="web", uid="u1")
    await runtime.run_sandbox(pb.RunSandboxRequest(sandbox_id="sandbox", pod=metadata))
    for name in ("app", "term"):
        config = pb.ContainerConfig(container_id=name, name=name, image="img", image_ref=ref)
        await runtime.create_container(
            pb.CreateContainerRequest(sandbox_id="sandbox", config=config)
        )
        await runtime.start_container(name)
