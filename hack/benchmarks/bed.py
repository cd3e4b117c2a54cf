"""The test bed: a cluster with one node, an image in its cache, and pods of the smallest shape."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import psutil

from hack.benchmarks.api import Api, PodWatch
from hack.devcluster import cluster as dev
from hack.devcluster.demo import Kubectl
from hack.devcluster.processes import Record, running, spawn, stop
from hack.devcluster.settings import ClusterSettings, default_settings
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.runtime.grpc_client import AgentClient

NAMESPACE = "default"
_SETTLED_S = 8.0


@dataclass
class Bed:
    """What a benchmark stands on."""

    settings: ClusterSettings
    builds: dev.Builds
    kubectl: Kubectl
    api: Api
    watch: PodWatch

    @property
    def image(self) -> str:
        return f"{self.settings.registry}/test/busybox:1"

    def start_agent(self, *options: str) -> Record:
        command = ["vk-provider", "agent", *dev.agent_command(self.settings, self.builds), *options]
        return spawn(self.settings, "agent", command)

    def restart_agent(self, *options: str) -> None:
        """End the agent and start it with other options; returns when the node is Ready again."""
        if (record := running(self.settings, "agent")) is not None:
            stop(self.settings, record)
        self.start_agent(*options)
        self.wait_ready()

    def wait_ready(self) -> None:
        dev.wait_node_ready(self.settings, self.builds, self.kubectl, ["agent", "node"])

    def create(self, name: str, script: str = "exec sleep 99999", **container: Any) -> None:
        """Create a pod of the smallest shape whose image is cached."""
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": True,
                "tolerations": [{"operator": "Exists"}],
                "containers": [
                    {
                        "name": "main",
                        "image": self.image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sh", "-c", script],
                        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                        **container,
                    }
                ],
            },
        }
        self.api.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", body)

    def wait_all_ready(self, names: list[str], timeout_s: float = 300) -> None:
        self.watch.wait(
            lambda seen: all(n in seen and seen[n].ready is not None for n in names),
            timeout_s,
            f"{len(names)} pods to be Ready",
        )

    def delete(self, names: list[str], timeout_s: float = 300) -> None:
        """Delete the pods and return when they are gone."""
        for name in names:
            self.api.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")
        self.watch.wait(
            lambda seen: all(seen[n].gone is not None for n in names),
            timeout_s,
            f"{len(names)} pods to be gone",
        )

    def wait_spares(self, timeout_s: float = 180) -> int:
        """Return how many VMs are kept ready, once the agent makes no more of them."""
        return asyncio.run(self._wait_spares(timeout_s))

    async def _wait_spares(self, timeout_s: float) -> int:
        most, since, began = 0, time.monotonic(), time.monotonic()
        async with AgentClient(f"unix:{self.settings.agent_socket}") as client:
            async for snapshot in client.watch_usage():
                now = time.monotonic()
                if snapshot.spare_vms != most:
                    most, since = snapshot.spare_vms, now
                if now - since > _SETTLED_S or now - began > timeout_s:
                    break
        return most

    def seconds_to_ready(self, name: str) -> float:
        """Return bound → Ready as the watch saw it."""
        seen = self.watch.seen[name]
        assert seen.bound is not None
        assert seen.ready is not None
        return seen.ready - seen.bound

    def qemu_of(self, name: str) -> int:
        """Return the process id of a pod's QEMU."""
        sandbox = asyncio.run(self._sandbox(name))
        mark = f"/sandboxes/{sandbox.machine_id}"
        for process in psutil.process_iter(["name", "cmdline"]):
            words = process.info["cmdline"] or []
            if any(word.startswith("guest=") and word.endswith(mark) for word in words):
                return process.pid
        raise SystemExit(f"no QEMU of pod {name} was found")

    def steps(self, name: str) -> dict[str, tuple[float, float]]:
        """Return the steps of a pod's start: begin and end, in seconds since the pod was bound."""
        sandbox = asyncio.run(self._sandbox(name))
        return {p.name: (p.start_ns / 1e9, p.end_ns / 1e9) for p in sandbox.phases}

    async def _sandbox(self, name: str) -> pb.SandboxStatus:
        async with AgentClient(f"unix:{self.settings.agent_socket}") as client:
            listed = await client.list_sandboxes(
                pod_uid=self.watch.seen[name].pod["metadata"]["uid"]
            )
        (sandbox,) = listed.sandboxes
        return sandbox


def say(text: str) -> None:
    click.echo(f"==> {text}", err=True)


@contextlib.contextmanager
def test_bed(*agent_options: str) -> Iterator[Bed]:
    """Start the cluster, pull the image with a first pod, and take everything down at the end."""
    with tempfile.TemporaryDirectory(prefix="vk-bench-") as scratch:
        settings = replace(
            default_settings(),
            directory=Path(scratch),
            run_directory=Path("/run/vk-provider/bench"),
            log_directory=Path(scratch) / "pods",
        )
        builds = dev.Builds(
            control_plane=Path(os.environ["VK_CONTROL_PLANE"]),
            guest_image=Path(os.environ["VK_GUEST_IMAGE"]),
            test_images=Path(os.environ["VK_TEST_IMAGES"]),
        )
        kubectl = dev.start_control_plane(settings, builds, say)
        try:
            dev.start_registry(settings, builds, say)
            api = Api(settings)
            bed = Bed(settings, builds, kubectl, api, PodWatch(api, NAMESPACE))
            bed.start_agent(*agent_options)
            spawn(settings, "node", ["vk-provider", "node", *dev.node_command(settings)])
            bed.wait_ready()
            kubectl.run("wait", "--for=create", "serviceaccount/default", "--timeout=30s")
            say("Pulling the image with a first pod")
            bed.create("first")
            bed.wait_all_ready(["first"])
            bed.delete(["first"])
            yield bed
        finally:
            dev.take_down(settings, say)
