"""A guest agent in this process, behind a real gRPC socket: containers that end when told to.

Keeps `guest.proto`'s rules (output numbered and resumable, events numbered) and runs nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from vk_provider._pb import guest_pb2 as pb
from vk_provider._pb import guest_pb2_grpc as rpc


@dataclass
class FakeContainer:
    """A container; `say` and `end` are a test's levers."""

    info: pb.ContainerInfo
    request: pb.CreateContainerRequest
    records: list[pb.OutputRecord] = field(default_factory=list)
    next_seq: int = 1
    acked_seq: int = 0
    cookie: bytes = b""
    eof_seq: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    signals: list[int] = field(default_factory=list)


class FakeGuest:
    """Serve with `async with FakeGuest(path)`; `start_error` makes every start fail."""

    def __init__(self, socket: Path) -> None:
        self.address = f"unix:{socket}"
        self.containers: dict[str, FakeContainer] = {}
        self.calls: list[str] = []
        self.configured: pb.ConfigureRequest | None = None
        self.volumes: dict[str, pb.PutVolumeRequest] = {}
        self.clock_ahead_ns = 0
        self.clock_changes: list[pb.SetClockRequest] = []
        self.start_error = ""
        self.ends_on_term = True
        self.hang = asyncio.Event()
        self.hang.set()
        self.hold_rehearsals = asyncio.Event()
        self.hold_rehearsals.set()
        self.hang_start: asyncio.Event | None = None
        self.starting = False
        self.silent = False
        self.cpu_usec = 1_500_000
        self.ends_statistics = False
        self.immortal = False
        self._events: list[pb.Event] = []
        self._changed = asyncio.Condition()
        self._server = grpc.aio.server()
        self._server.add_insecure_port(self.address)
        rpc.add_GuestServiceServicer_to_server(self, self._server)  # type: ignore[arg-type]

    async def __aenter__(self) -> FakeGuest:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    # -- a test's levers --

    async def say(self, container_id: str, text: str, *, stderr: bool = False) -> None:
        await self._output(container_id, data=text.encode(), stderr=stderr)

    async def close_output(self, container_id: str) -> None:
        await self._output(container_id, eof=True)

    async def end(self, container_id: str, code: int = 0, *, eof: bool = True, **info: Any) -> None:
        container = self.containers[container_id]
        container.info.MergeFrom(pb.ContainerInfo(**info))
        container.info.state, container.info.exit_code = pb.EXITED, code
        container.info.finished_at_ns = container.info.started_at_ns + 1
        if eof:
            await self.close_output(container_id)
        await self._tell(container.info)

    async def _output(self, container_id: str, **fields: Any) -> None:
        container = self.containers[container_id]
        async with container.changed:
            record = pb.OutputRecord(seq=container.next_seq, time_ns=1_700_000_000 * 10**9)
            record.MergeFrom(pb.OutputRecord(**fields))
            container.records.append(record)
            container.next_seq += 1
            if record.eof:
                container.eof_seq = record.seq
            container.changed.notify_all()

    async def _tell(self, info: pb.ContainerInfo) -> None:
        async with self._changed:
            event = pb.Event(seq=len(self._events) + 1, kind=pb.Event.CONTAINER)
            event.container.CopyFrom(info)
            self._events.append(event)
            self._changed.notify_all()

    # -- the service --

    def __getattr__(self, name: str) -> Any:
        if name[:1].isupper():
            return self._unimplemented
        raise AttributeError(name)

    async def _unimplemented(self, request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the fake does not do this")

    async def Hello(self, request: Any, context: Any) -> pb.HelloResponse:  # noqa: N802
        if self.silent:
            await asyncio.get_running_loop().create_future()
        return pb.HelloResponse(
            protocol_version=1,
            guest_version="fake",
            kernel_release="6.1",
            clock_ns=time.time_ns() + self.clock_ahead_ns,
        )

    async def SetClock(self, request: Any, context: Any) -> pb.SetClockResponse:  # noqa: N802
        self.clock_changes.append(request)
        self.clock_ahead_ns += request.adjust_ns
        return pb.SetClockResponse(offset_ns=request.adjust_ns)

    async def Configure(self, request: Any, context: Any) -> pb.ConfigureResponse:  # noqa: N802
        self.calls.append("configure")
        await self.hang.wait()
        self.configured = request
        return pb.ConfigureResponse(machine_id=request.machine_id)

    async def Rehearse(self, request: Any, context: Any) -> pb.RehearseResponse:  # noqa: N802
        await self.hang.wait()
        self.calls.append("rehearse")
        await self.hold_rehearsals.wait()
        return pb.RehearseResponse()

    async def MountDisk(self, request: Any, context: Any) -> pb.MountDiskResponse:  # noqa: N802
        self.calls.append(f"mount {request.lun} {request.image_key or 'scratch'}")
        return pb.MountDiskResponse()

    async def PutVolume(self, request: Any, context: Any) -> pb.PutVolumeResponse:  # noqa: N802
        self.volumes[request.name] = request
        return pb.PutVolumeResponse()

    async def CreateContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        info = pb.ContainerInfo(container_id=request.container_id, state=pb.CREATED)
        self.containers.setdefault(request.container_id, FakeContainer(info, request))
        return pb.CreateContainerResponse()

    async def StartContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        container = self.containers[request.container_id]
        self.starting = True
        if self.hang_start is not None:
            await self.hang_start.wait()
        if self.start_error:
            container.info.error = self.start_error
            await self.end(request.container_id, 127)
            return pb.StartContainerResponse(error=self.start_error, error_exit_code=127)
        container.info.state, container.info.pid = pb.RUNNING, 7
        container.info.started_at_ns = 1
        await self._tell(container.info)
        return pb.StartContainerResponse(started_at_ns=1, pid=7)

    async def SignalContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        container = self.containers[request.container_id]
        container.signals.append(request.signal)
        ends = not self.immortal and (request.signal == 9 or self.ends_on_term)
        if container.info.state == pb.RUNNING and ends:
            await self.end(request.container_id, 128 + request.signal, signal=request.signal)
        return pb.SignalContainerResponse()

    async def RemoveContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.containers.pop(request.container_id, None)
        return pb.RemoveContainerResponse()

    async def UpdateContainer(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.UpdateContainerResponse(resources_json=request.resources_json)

    async def ListContainers(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ListContainersResponse(
            containers=[c.info for c in self.containers.values()], event_seq=len(self._events)
        )

    async def Events(self, request: Any, context: Any) -> AsyncIterator[pb.Event]:  # noqa: N802
        seq = request.after_seq
        while True:
            async with self._changed:
                while len(self._events) <= seq:
                    await self._changed.wait()
                event = self._events[seq]
            seq += 1
            yield event

    async def Output(self, requests: Any, context: Any) -> None:  # noqa: N802
        first = await context.read()
        container = self.containers.get(first.container_id)
        if container is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such container")
            return
        resume = pb.OutputResume(acked_seq=container.acked_seq, cookie=container.cookie)
        await context.write(pb.OutputRecord(resume=resume))
        if container.eof_seq and container.acked_seq >= container.eof_seq:
            return

        async def acknowledgements() -> None:
            while isinstance(ack := await context.read(), pb.OutputAck):
                async with container.changed:
                    container.acked_seq, container.cookie = ack.acked_seq, ack.cookie
                    container.records = [r for r in container.records if r.seq > ack.acked_seq]
                    container.changed.notify_all()

        async with asyncio.TaskGroup() as group:
            acks = group.create_task(acknowledgements())
            sent = container.acked_seq
            while True:
                async with container.changed:
                    while not (new := [r for r in container.records if r.seq > sent]):
                        await container.changed.wait()
                for record in new:
                    await context.write(record)
                    sent = record.seq
                if new[-1].eof:
                    break
            await acks

    async def Exec(self, requests: Any, context: Any) -> None:  # noqa: N802
        """Echo stdin to stdout until its end, then exit with 3."""
        first = await context.read()
        self.calls.append(f"exec {list(first.start.args)}")
        await context.write(pb.ExecOutput(started=True))
        while isinstance(message := await context.read(), pb.ExecInput):
            if message.stdin_eof:
                break
            await context.write(pb.ExecOutput(stdout=message.stdin))
        await context.write(pb.ExecOutput(exit=pb.ExecExit(code=3)))

    async def TakeStats(self, requests: Any, context: Any) -> AsyncIterator[pb.Stats]:  # noqa: N802
        async for _ in requests:
            self.calls.append("stats")
            usage = pb.CgroupStats(cpu_usec=self.cpu_usec, memory_current=9, pids_current=2)
            yield pb.Stats(pod=usage, time_ns=time.time_ns() + self.clock_ahead_ns)
            if self.ends_statistics:
                return
