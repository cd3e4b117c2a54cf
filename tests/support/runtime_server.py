"""Serves any Runtime over gRPC, as an agent does: the client is tested against a fake so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider._pb import sandbox_pb2_grpc as rpc
from vk_provider.common import errors
from vk_provider.runtime.api import Runtime

_CODES = {
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}


class _Servicer:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def GetHostInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(context, self._runtime.host_info())

    async def UpdateRuntimeConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        call = self._runtime.update_runtime_config(list(request.pod_cidrs))
        await self._answer(context, call)
        return pb.UpdateRuntimeConfigResponse()

    async def RunSandbox(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(context, self._runtime.run_sandbox(request))

    async def StopSandbox(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._answer(context, self._runtime.stop_sandbox(request.sandbox_id))
        return pb.StopSandboxResponse()

    async def RemoveSandbox(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._answer(context, self._runtime.remove_sandbox(request.sandbox_id))
        return pb.RemoveSandboxResponse()

    async def ListSandboxes(self, request: Any, context: Any) -> Any:  # noqa: N802
        call = self._runtime.list_sandboxes(request.sandbox_id, request.pod_uid)
        return await self._answer(context, call)

    async def CreateContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(context, self._runtime.create_container(request))

    async def StartContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(context, self._runtime.start_container(request.container_id))

    async def StopContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        call = self._runtime.stop_container(
            request.container_id, request.grace_period_s, request.signal
        )
        return await self._answer(context, call)

    async def RemoveContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._answer(context, self._runtime.remove_container(request.container_id))
        return pb.RemoveContainerResponse()

    async def UpdateContainerResources(self, request: Any, context: Any) -> Any:  # noqa: N802
        call = self._runtime.update_container_resources(
            request.container_id, request.resources, request.annotations
        )
        return await self._answer(context, call)

    async def UpdateVolume(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._answer(context, self._runtime.update_volume(request.sandbox_id, request.volume))
        return pb.UpdateVolumeResponse()

    async def PullImage(self, request: Any, context: Any) -> Any:  # noqa: N802
        auth = request.auth if request.HasField("auth") else None
        async for item in self._items(context, self._runtime.pull_image(request.image, auth)):
            yield item

    async def ListImages(self, request: Any, context: Any) -> Any:  # noqa: N802
        images = await self._answer(context, self._runtime.list_images(request.image))
        return pb.ListImagesResponse(images=images)

    async def RemoveImage(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._answer(context, self._runtime.remove_image(request.image))
        return pb.RemoveImageResponse()

    async def Exec(self, requests: Any, context: Any) -> Any:  # noqa: N802
        async for item in self._items(context, self._runtime.exec(requests)):
            yield item

    async def ReadLogs(self, request: Any, context: Any) -> Any:  # noqa: N802
        async for item in self._items(context, self._runtime.read_logs(request)):
            yield pb.ReadLogsResponse(data=item)

    async def WatchEvents(self, request: Any, context: Any) -> Any:  # noqa: N802
        async for item in self._items(context, self._runtime.watch_events(request.after_seq)):
            yield item

    async def ListUsageRecords(self, request: Any, context: Any) -> Any:  # noqa: N802
        call = self._runtime.list_usage_records(request.since_ns, request.pod_uid)
        return pb.ListUsageRecordsResponse(records=await self._answer(context, call))

    async def WatchUsage(self, request: Any, context: Any) -> Any:  # noqa: N802
        async for item in self._items(context, self._runtime.watch_usage()):
            yield item

    async def Attach(self, requests: Any, context: Any) -> Any:  # noqa: N802
        async for item in self._items(context, self._runtime.attach(requests)):
            yield item

    async def PortForward(self, requests: Any, context: Any) -> Any:  # noqa: N802
        async for item in self._items(context, self._runtime.port_forward(requests)):
            yield item

    async def _answer(self, context: Any, call: Any) -> Any:
        try:
            return await call
        except errors.VkError as exc:
            await context.abort(_CODES[type(exc)], str(exc))

    async def _items(self, context: Any, items: Any) -> AsyncIterator[Any]:
        try:
            async with contextlib.aclosing(items):
                async for item in items:
                    yield item
        except errors.VkError as exc:
            await context.abort(_CODES[type(exc)], str(exc))


@contextlib.asynccontextmanager
async def served(runtime: Runtime, directory: Path) -> AsyncIterator[str]:
    """Serve until the block ends; yields gRPC's name for the socket."""
    server = grpc.aio.server()
    rpc.add_SandboxServiceServicer_to_server(cast("Any", _Servicer(runtime)), server)
    target = f"unix:{directory / 'agent.sock'}"
    server.add_insecure_port(target)
    await server.start()
    try:
        yield target
    finally:
        await server.stop(0)
        await asyncio.sleep(0)
