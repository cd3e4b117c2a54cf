"""The Runtime protocol over gRPC to an agent's socket.

Every unary call carries a deadline. gRPC's errors become kinds of `vk_provider.common.errors`
here; a channel that is down answers Unavailable at once and connects again by itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, TypeVar, cast

import grpc
import grpc.aio

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider._pb import sandbox_pb2_grpc as rpc
from vk_provider.common import errors
from vk_provider.common.errors import VkError

_T = TypeVar("_T")

_KINDS: dict[grpc.StatusCode, type[VkError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.Invalid,
    grpc.StatusCode.OUT_OF_RANGE: errors.Invalid,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.UNIMPLEMENTED: errors.FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Exhausted,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.CANCELLED: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
}

_ASK_S = 30.0  # what the agent answers from its records
_DO_S = 120.0  # what a guest has to do
_BOOT_S = 300.0  # a cold boot under emulation on a busy host, tried again by the agent
_MESSAGE_BYTES = 64 * 1024 * 1024  # a pod's ConfigMaps and Secrets, 1 MiB each
_OPTIONS = [
    ("grpc.default_authority", "localhost"),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
]


class AgentClient:
    """Implements `vk_provider.runtime.api.Runtime`; the caller owns it and closes it."""

    def __init__(self, target: str) -> None:
        """`target` is gRPC's name for the agent: `unix:/run/vk-provider/agent/agent.sock`."""
        self._target = target
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        # The generated class is typed for both kinds of channel; this one is asynchronous.
        self._stub = cast("Any", rpc.SandboxServiceStub(cast("Any", self._channel)))

    async def close(self) -> None:
        """End all calls."""
        await self._channel.close()

    async def __aenter__(self) -> AgentClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def host_info(self) -> pb.HostInfo:
        """See Runtime."""
        return await self._ask(
            self._stub.GetHostInfo(pb.GetHostInfoRequest(), timeout=_ASK_S), "host information"
        )

    async def update_runtime_config(self, pod_cidrs: list[str]) -> None:
        """See Runtime."""
        request = pb.UpdateRuntimeConfigRequest(pod_cidrs=pod_cidrs)
        await self._ask(
            self._stub.UpdateRuntimeConfig(request, timeout=_ASK_S), "taking the pod CIDRs"
        )

    async def run_sandbox(self, request: pb.RunSandboxRequest) -> pb.SandboxStatus:
        """See Runtime."""
        return await self._ask(
            self._stub.RunSandbox(request, timeout=_BOOT_S), f"sandbox {request.sandbox_id}"
        )

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """See Runtime."""
        request = pb.StopSandboxRequest(sandbox_id=sandbox_id)
        await self._ask(
            self._stub.StopSandbox(request, timeout=_DO_S), f"the end of sandbox {sandbox_id}"
        )

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """See Runtime."""
        request = pb.RemoveSandboxRequest(sandbox_id=sandbox_id)
        await self._ask(
            self._stub.RemoveSandbox(request, timeout=_DO_S), f"removal of sandbox {sandbox_id}"
        )

    async def list_sandboxes(
        self, sandbox_id: str = "", pod_uid: str = ""
    ) -> pb.ListSandboxesResponse:
        """See Runtime."""
        request = pb.ListSandboxesRequest(sandbox_id=sandbox_id, pod_uid=pod_uid)
        return await self._ask(
            self._stub.ListSandboxes(request, timeout=_ASK_S), "its list of sandboxes"
        )

    async def create_container(self, request: pb.CreateContainerRequest) -> pb.ContainerStatus:
        """See Runtime."""
        return await self._ask(
            self._stub.CreateContainer(request, timeout=_DO_S), f"container {request.config.name}"
        )

    async def start_container(self, container_id: str) -> pb.ContainerStatus:
        """See Runtime."""
        request = pb.StartContainerRequest(container_id=container_id)
        return await self._ask(
            self._stub.StartContainer(request, timeout=_DO_S), f"start of {container_id}"
        )

    async def stop_container(
        self, container_id: str, grace_s: int, signal: str = ""
    ) -> pb.ContainerStatus:
        """See Runtime."""
        request = pb.StopContainerRequest(
            container_id=container_id, grace_period_s=grace_s, signal=signal
        )
        return await self._ask(
            self._stub.StopContainer(request, timeout=grace_s + _DO_S), f"end of {container_id}"
        )

    async def remove_container(self, container_id: str) -> None:
        """See Runtime."""
        request = pb.RemoveContainerRequest(container_id=container_id)
        await self._ask(
            self._stub.RemoveContainer(request, timeout=_DO_S), f"removal of {container_id}"
        )

    async def update_container_resources(
        self, container_id: str, resources: pb.LinuxResources, annotations: Mapping[str, str]
    ) -> pb.ContainerStatus:
        """See Runtime."""
        request = pb.UpdateContainerResourcesRequest(
            container_id=container_id, resources=resources, annotations=annotations
        )
        return await self._ask(
            self._stub.UpdateContainerResources(request, timeout=_DO_S),
            f"new limits of {container_id}",
        )

    async def update_volume(self, sandbox_id: str, volume: pb.Volume) -> None:
        """See Runtime."""
        request = pb.UpdateVolumeRequest(sandbox_id=sandbox_id, volume=volume)
        await self._ask(
            self._stub.UpdateVolume(request, timeout=_DO_S), f"an update of volume {volume.name}"
        )

    def pull_image(
        self, image: str, auth: pb.RegistryAuth | None = None
    ) -> AsyncGenerator[pb.PullImageProgress, None]:
        """See Runtime. Without a deadline: an image may be large, and progress is seen."""
        call = self._stub.PullImage(pb.PullImageRequest(image=image, auth=auth))
        return self._stream(call, "")  # its sentence goes into an event as it is

    async def list_images(self, image: str = "") -> list[pb.Image]:
        """See Runtime."""
        request = pb.ListImagesRequest(image=image)
        answer = await self._ask(
            self._stub.ListImages(request, timeout=_ASK_S), "its list of images"
        )
        return list(answer.images)

    async def remove_image(self, image: str) -> None:
        """See Runtime."""
        request = pb.RemoveImageRequest(image=image)
        await self._ask(self._stub.RemoveImage(request, timeout=_DO_S), f"removal of image {image}")

    def exec(
        self, requests: AsyncIterator[pb.ExecRequest]
    ) -> AsyncGenerator[pb.ExecResponse, None]:
        """See Runtime."""
        return self._stream(self._stub.Exec(requests), "exec")

    def attach(
        self, requests: AsyncIterator[pb.AttachRequest]
    ) -> AsyncGenerator[pb.AttachResponse, None]:
        """See Runtime."""
        return self._stream(self._stub.Attach(requests), "attach")

    def port_forward(
        self, requests: AsyncIterator[pb.PortForwardRequest]
    ) -> AsyncGenerator[pb.PortForwardResponse, None]:
        """See Runtime."""
        return self._stream(self._stub.PortForward(requests), "port-forward")

    async def read_logs(self, request: pb.ReadLogsRequest) -> AsyncGenerator[bytes, None]:
        """See Runtime."""
        call = self._stub.ReadLogs(request)
        async with aclosing(self._stream(call, f"the log of {request.container_id}")) as parts:
            async for part in parts:
                yield part.data

    def watch_events(self, after_seq: int = 0) -> AsyncGenerator[pb.Event, None]:
        """See Runtime."""
        call = self._stub.WatchEvents(pb.WatchEventsRequest(after_seq=after_seq))
        return self._stream(call, "its events")

    def watch_usage(self) -> AsyncGenerator[pb.UsageSnapshot, None]:
        """See Runtime."""
        call = self._stub.WatchUsage(pb.WatchUsageRequest())
        return self._stream(call, "usage")

    async def list_usage_records(
        self, since_ns: int = 0, pod_uid: str = ""
    ) -> list[pb.UsageRecord]:
        """See Runtime."""
        request = pb.ListUsageRecordsRequest(since_ns=since_ns, pod_uid=pod_uid)
        answer = await self._ask(
            self._stub.ListUsageRecords(request, timeout=_ASK_S), "usage records"
        )
        return list(answer.records)

    async def _ask(self, call: Awaitable[_T], what: str) -> _T:
        try:
            return await call
        except grpc.aio.AioRpcError as exc:
            raise self._translated(exc, what) from exc

    async def _stream(self, call: Any, what: str) -> AsyncGenerator[Any, None]:
        """Yield what the call answers; closing the generator cancels the call."""
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as exc:
            raise self._translated(exc, what) from exc
        finally:
            call.cancel()

    def _translated(self, error: grpc.aio.AioRpcError, what: str) -> VkError:
        """Return the kind; the agent's own sentence stands as it is, gRPC's gets a beginning."""
        kind = _KINDS.get(error.code(), errors.Internal)
        details = error.details() or error.code().name.lower()
        if what and kind in {errors.Unavailable, errors.DeadlineExceeded}:
            return kind(f"the agent at {self._target} was asked for {what}: {details}")
        return kind(details)
