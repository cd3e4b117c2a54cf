"""A runtime that counts and times what is asked of it, for /metrics.

Names are the kubelet's for its CRI client; the phases of a sandbox's start are our own, since no
other runtime tells them. They are registered process-wide, as is usual with prometheus_client.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from typing import TypeVar

from prometheus_client import Counter, Histogram

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import VkError
from vk_provider.runtime.api import Runtime

T = TypeVar("T")

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_OPERATION = ["operation_type"]

OPERATIONS = Counter(
    "kubelet_runtime_operations_total",
    "Cumulative number of runtime operations by operation type.",
    _OPERATION,
)
ERRORS = Counter(
    "kubelet_runtime_operations_errors_total",
    "Cumulative number of runtime operation errors by operation type.",
    _OPERATION,
)
DURATIONS = Histogram(
    "kubelet_runtime_operations_duration_seconds",
    "Duration in seconds of runtime operations, broken down by operation type.",
    _OPERATION,
    buckets=_BUCKETS,
)
PHASES = Histogram(
    "vk_provider_sandbox_start_phase_duration_seconds",
    "Duration in seconds of each phase of starting a sandbox, by how it was started.",
    ["phase", "start_mode"],
    buckets=_BUCKETS,
)


class MeasuredRuntime:
    """Passes every call on to `runtime`; streams are counted, and pulls are timed to their end."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def host_info(self) -> pb.HostInfo:
        return await _timed("status", self._runtime.host_info())

    async def update_runtime_config(self, pod_cidrs: list[str]) -> None:
        await _timed("update_runtime_config", self._runtime.update_runtime_config(pod_cidrs))

    async def run_sandbox(self, request: pb.RunSandboxRequest) -> pb.SandboxStatus:
        status = await _timed("run_podsandbox", self._runtime.run_sandbox(request))
        for phase in status.phases:
            duration_s = (phase.end_ns - phase.start_ns) / 1e9
            PHASES.labels(phase.name, status.start_mode).observe(max(duration_s, 0.0))
        return status

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await _timed("stop_podsandbox", self._runtime.stop_sandbox(sandbox_id))

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await _timed("remove_podsandbox", self._runtime.remove_sandbox(sandbox_id))

    async def list_sandboxes(
        self, sandbox_id: str = "", pod_uid: str = ""
    ) -> pb.ListSandboxesResponse:
        return await _timed("list_podsandbox", self._runtime.list_sandboxes(sandbox_id, pod_uid))

    async def create_container(self, request: pb.CreateContainerRequest) -> pb.ContainerStatus:
        return await _timed("create_container", self._runtime.create_container(request))

    async def start_container(self, container_id: str) -> pb.ContainerStatus:
        return await _timed("start_container", self._runtime.start_container(container_id))

    async def stop_container(
        self, container_id: str, grace_s: int, signal: str = ""
    ) -> pb.ContainerStatus:
        call = self._runtime.stop_container(container_id, grace_s, signal)
        return await _timed("stop_container", call)

    async def remove_container(self, container_id: str) -> None:
        await _timed("remove_container", self._runtime.remove_container(container_id))

    async def update_container_resources(
        self, container_id: str, resources: pb.LinuxResources, annotations: Mapping[str, str]
    ) -> pb.ContainerStatus:
        call = self._runtime.update_container_resources(container_id, resources, annotations)
        return await _timed("update_container", call)

    async def update_volume(self, sandbox_id: str, volume: pb.Volume) -> None:
        await _timed("update_volume", self._runtime.update_volume(sandbox_id, volume))

    async def pull_image(
        self, image: str, auth: pb.RegistryAuth | None = None
    ) -> AsyncGenerator[pb.PullImageProgress, None]:
        OPERATIONS.labels("pull_image").inc()
        began = time.perf_counter()
        try:
            async with aclosing(self._runtime.pull_image(image, auth)) as progress:
                async for each in progress:
                    yield each
        except VkError:
            ERRORS.labels("pull_image").inc()
            raise
        finally:
            DURATIONS.labels("pull_image").observe(time.perf_counter() - began)

    async def list_images(self, image: str = "") -> list[pb.Image]:
        return await _timed("list_images", self._runtime.list_images(image))

    async def remove_image(self, image: str) -> None:
        await _timed("remove_image", self._runtime.remove_image(image))

    def exec(
        self, requests: AsyncIterator[pb.ExecRequest]
    ) -> AsyncGenerator[pb.ExecResponse, None]:
        OPERATIONS.labels("exec").inc()
        return self._runtime.exec(requests)

    def attach(
        self, requests: AsyncIterator[pb.AttachRequest]
    ) -> AsyncGenerator[pb.AttachResponse, None]:
        OPERATIONS.labels("attach").inc()
        return self._runtime.attach(requests)

    def port_forward(
        self, requests: AsyncIterator[pb.PortForwardRequest]
    ) -> AsyncGenerator[pb.PortForwardResponse, None]:
        OPERATIONS.labels("port_forward").inc()
        return self._runtime.port_forward(requests)

    def read_logs(self, request: pb.ReadLogsRequest) -> AsyncGenerator[bytes, None]:
        OPERATIONS.labels("read_logs").inc()
        return self._runtime.read_logs(request)

    def watch_events(self, after_seq: int = 0) -> AsyncGenerator[pb.Event, None]:
        OPERATIONS.labels("watch_events").inc()
        return self._runtime.watch_events(after_seq)

    def watch_usage(self) -> AsyncGenerator[pb.UsageSnapshot, None]:
        OPERATIONS.labels("watch_usage").inc()
        return self._runtime.watch_usage()

    async def list_usage_records(
        self, since_ns: int = 0, pod_uid: str = ""
    ) -> list[pb.UsageRecord]:
        call = self._runtime.list_usage_records(since_ns, pod_uid)
        return await _timed("list_usage_records", call)


async def _timed(operation: str, call: Awaitable[T]) -> T:
    OPERATIONS.labels(operation).inc()
    began = time.perf_counter()
    try:
        return await call
    except VkError:
        ERRORS.labels(operation).inc()
        raise
    finally:
        DURATIONS.labels(operation).observe(time.perf_counter() - began)
