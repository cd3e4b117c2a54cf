# ruff: noqa: N802 - the names are the contract's
"""`sandbox.proto` over gRPC: checks nothing, decides nothing, translates errors."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
import grpc.aio

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider._pb.sandbox_pb2_grpc import SandboxServiceServicer
from vk_provider.agent import containers, images_service, sandboxes, streams
from vk_provider.agent.container_limits import update_resources
from vk_provider.agent.context import Context
from vk_provider.agent.host_info import host_info
from vk_provider.agent.logs import ENDED, read_logs
from vk_provider.agent.metering import Metering
from vk_provider.agent.ports import MachinesInfo
from vk_provider.agent.rpc_errors import status_code
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger

_log = get_logger("agent.server")
_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
)


def _translated(handler: _Handler) -> _Handler:
    """Answer errors of our kinds with their code and sentence, defects with INTERNAL."""

    @functools.wraps(handler)
    async def wrapped(self: Any, request: Any, context: Any) -> Any:
        try:
            return await handler(self, request, context)
        except VkError as exc:
            await context.abort(status_code(exc), str(exc))
        except grpc.aio.AbortError:
            raise
        except Exception as exc:  # noqa: BLE001 - the last border before the caller
            _log.exception("a call failed", call=handler.__name__)
            await context.abort(grpc.StatusCode.INTERNAL, f"a defect of the agent: {exc!r}")

    return wrapped  # type: ignore[return-value]


class SandboxServer(SandboxServiceServicer):
    """The service of one agent."""

    def __init__(self, context: Context, machines: MachinesInfo, metering: Metering) -> None:
        self._context = context
        self._machines = machines
        self._metering = metering

    @_translated
    async def GetHostInfo(self, request: pb.GetHostInfoRequest, context: Any) -> pb.HostInfo:
        return host_info(self._context, self._machines)

    @_translated
    async def UpdateRuntimeConfig(
        self, request: pb.UpdateRuntimeConfigRequest, context: Any
    ) -> pb.UpdateRuntimeConfigResponse:
        before = self._context.network.ready()
        await self._context.network.set_pod_cidrs(list(request.pod_cidrs))
        if self._context.network.ready() != before:
            self._context.events.host_changed()
        return pb.UpdateRuntimeConfigResponse()

    @_translated
    async def RunSandbox(self, request: pb.RunSandboxRequest, context: Any) -> pb.SandboxStatus:
        return await sandboxes.run_sandbox(self._context, request)

    @_translated
    async def StopSandbox(
        self, request: pb.StopSandboxRequest, context: Any
    ) -> pb.StopSandboxResponse:
        await sandboxes.stop_sandbox(self._context, request.sandbox_id)
        return pb.StopSandboxResponse()

    @_translated
    async def RemoveSandbox(
        self, request: pb.RemoveSandboxRequest, context: Any
    ) -> pb.RemoveSandboxResponse:
        await sandboxes.remove_sandbox(self._context, request.sandbox_id)
        return pb.RemoveSandboxResponse()

    @_translated
    async def ListSandboxes(
        self, request: pb.ListSandboxesRequest, context: Any
    ) -> pb.ListSandboxesResponse:
        return sandboxes.list_sandboxes(self._context, request.sandbox_id, request.pod_uid)

    @_translated
    async def UpdateVolume(
        self, request: pb.UpdateVolumeRequest, context: Any
    ) -> pb.UpdateVolumeResponse:
        await sandboxes.update_volume(self._context, request.sandbox_id, request.volume)
        return pb.UpdateVolumeResponse()

    @_translated
    async def CreateContainer(
        self, request: pb.CreateContainerRequest, context: Any
    ) -> pb.ContainerStatus:
        return await containers.create_container(self._context, request)

    @_translated
    async def StartContainer(
        self, request: pb.StartContainerRequest, context: Any
    ) -> pb.ContainerStatus:
        return await containers.start_container(self._context, request.container_id)

    @_translated
    async def StopContainer(
        self, request: pb.StopContainerRequest, context: Any
    ) -> pb.ContainerStatus:
        return await containers.stop_container(
            self._context, request.container_id, request.grace_period_s, request.signal
        )

    @_translated
    async def RemoveContainer(
        self, request: pb.RemoveContainerRequest, context: Any
    ) -> pb.RemoveContainerResponse:
        await containers.remove_container(self._context, request.container_id)
        return pb.RemoveContainerResponse()

    @_translated
    async def UpdateContainerResources(
        self, request: pb.UpdateContainerResourcesRequest, context: Any
    ) -> pb.ContainerStatus:
        return await update_resources(
            self._context, request.container_id, request.resources, request.annotations
        )

    @_translated
    async def PullImage(self, request: pb.PullImageRequest, context: Any) -> None:  # type: ignore[override]
        async with aclosing(images_service.pull_image(self._context, request)) as progress:
            async for step in progress:
                await context.write(step)

    @_translated
    async def ListImages(
        self, request: pb.ListImagesRequest, context: Any
    ) -> pb.ListImagesResponse:
        return pb.ListImagesResponse(
            images=images_service.list_images(self._context, request.image)
        )

    @_translated
    async def RemoveImage(
        self, request: pb.RemoveImageRequest, context: Any
    ) -> pb.RemoveImageResponse:
        await images_service.remove_image(self._context, request.image)
        return pb.RemoveImageResponse()

    @_translated
    async def Exec(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        await streams.exec_stream(self._context, context)

    @_translated
    async def Attach(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        await streams.attach_stream(self._context, context)

    @_translated
    async def PortForward(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        await streams.port_forward_stream(self._context, context)

    @_translated
    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> None:  # type: ignore[override]
        container = self._context.container(request.container_id)
        live = ENDED if container.record.exited else container.feed.subscribe()
        async for data in read_logs(container.log_path, request, live):
            await context.write(pb.ReadLogsResponse(data=data))

    @_translated
    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Any) -> None:  # type: ignore[override]
        async with aclosing(self._context.events.watch(request.after_seq)) as events:
            async for event in events:
                await context.write(event)

    @_translated
    async def WatchUsage(self, request: pb.WatchUsageRequest, context: Any) -> None:  # type: ignore[override]
        async with aclosing(self._metering.watch()) as snapshots:
            async for snapshot in snapshots:
                await context.write(snapshot)

    @_translated
    async def ListUsageRecords(
        self, request: pb.ListUsageRecordsRequest, context: Any
    ) -> pb.ListUsageRecordsResponse:
        records = self._context.store.usage(request.since_ns, request.pod_uid)
        return pb.ListUsageRecordsResponse(records=records)
