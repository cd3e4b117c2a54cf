"""GET /containerLogs/{namespace}/{pod}/{container}: a container's log as it is written."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import Clock
from vk_provider.common.errors import Invalid, VkError
from vk_provider.common.logging import get_logger
from vk_provider.kubelet_api.containers import container_spec, log_container_id
from vk_provider.kubelet_api.log_options import LogOptions, Undecodable, parse_log_options
from vk_provider.kubelet_api.sources import PodSource
from vk_provider.runtime.api import Runtime

log = get_logger("kubelet_api.logs")


class ContainerLogs:
    """Serves logs. Codes and words are the kubelet's getContainerLogs."""

    def __init__(self, pods: PodSource, runtime: Runtime, clock: Clock) -> None:
        self._pods = pods
        self._runtime = runtime
        self._clock = clock

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; a client that reads slowly slows the reading of the log."""
        namespace, name, container = (
            request.match_info[part] for part in ("namespace", "pod", "container")
        )
        try:
            options = parse_log_options(request.query)
        except Undecodable as exc:
            return _plain(400, f'{{"message": "Unable to decode query."}}\n{exc}')
        except Invalid as exc:
            return _plain(422, f'{{"message": "Invalid request."}}\n{exc}')
        entry = self._pods.find(namespace, name)
        if entry is None:
            return _plain(404, f'pod "{name}" does not exist')
        if container_spec(entry.pod, container) is None:
            return _plain(404, f'container "{container}" not found in pod "{name}"')
        try:
            container_id = log_container_id(entry.pod, container, options.previous)
        except VkError as exc:
            return _plain(400, str(exc))
        async with aclosing(self._runtime.read_logs(self._read(container_id, options))) as chunks:
            return await _stream(request, options, chunks)

    def _read(self, container_id: str, options: LogOptions) -> pb.ReadLogsRequest:
        return pb.ReadLogsRequest(
            container_id=container_id,
            follow=options.follow and not options.previous,
            tail_lines=options.tail_lines,
            since_time_ns=options.since_ns(self._clock.now_ns()),
            timestamps=options.timestamps,
            limit_bytes=options.limit_bytes,
            stream=options.stream,
        )


async def _stream(
    request: web.Request, options: LogOptions, chunks: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    if options.follow:
        # The first line may be long in coming; the client learns at once that it will come.
        await response.prepare(request)
    try:
        async for chunk in chunks:
            if not response.prepared:
                await response.prepare(request)
            await response.write(chunk)
    except VkError as exc:
        if not response.prepared:
            return _plain(400, str(exc))
        log.warning("a log broke off", path=request.path, error=str(exc))
        if request.transport is not None:
            request.transport.abort()  # an end without the last chunk: no one takes it for whole
        return response
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)
