"""Takes a container's output from the guest to its log, each record once.

Written first, then acknowledged with the log's cookie; a broken stream, or a new agent, begins at
the guest's last acknowledgement again. What waits between the two ends is bounded, so a disk that
is full or slow holds the guest's writer back and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc.aio

from vk_provider._pb import guest_pb2
from vk_provider.agent.guest_calls import GuestMisbehaved, broke_off
from vk_provider.agent.logs import LogWriter
from vk_provider.agent.together import together
from vk_provider.common.clock import Clock
from vk_provider.common.errors import Invalid
from vk_provider.common.logging import get_logger

if TYPE_CHECKING:
    from vk_provider._pb.guest_pb2_grpc import GuestServiceAsyncStub

_log = get_logger("agent.output")

MAX_RECORD_BYTES = 16 * 1024
MAX_COOKIE_BYTES = 4096
_MAX_WAITING_BYTES = 1024 * 1024
_RECORD_BYTES = 1024  # what a record takes in memory beside its data
_RETRY_S = 0.1
_DISK_RETRY_S = 1.0
# Above that a write may take long enough to hold up the event loop.
_OWN_THREAD_BYTES = 128 * 1024


class OutputPump:
    """Of one container. `run` ends when the log is complete or its VM's streams end for good."""

    def __init__(
        self,
        container_id: str,
        stub: GuestServiceAsyncStub,
        writer: LogWriter,
        clock: Clock,
        vm_ended: Callable[[], bool],
        on_held: Callable[[], None],
    ) -> None:
        self._container_id = container_id
        self._stub = stub
        self._writer = writer
        self._clock = clock
        self._vm_ended = vm_ended
        self._on_held = on_held
        self.held = ""
        """Why the output waits in the VM: its log cannot be written. `on_held` is for changes.

        Stays when the pump ends so: then its VM has taken along what waited.
        """
        self.waits_for_room = False
        """It waits for nothing but room on the disk, and goes on by itself."""
        self.complete = asyncio.Event()
        """Set when the last record is in the log."""
        self.progress = 0
        """Grows with each batch."""
        self._batch: list[guest_pb2.OutputRecord] = []
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._acked = 0
        self._cookie = b""
        """Of the log as far as it is written."""

    async def run(self) -> None:
        """Pump until the log is complete. Raises GuestMisbehaved; cancel it to end it early."""
        try:
            while not self.complete.is_set():
                try:
                    await self._run_once()
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as exc:
                    # InvalidStateError: it broke off while its last records were written; how, the
                    # next call tells.
                    if isinstance(exc, grpc.aio.AioRpcError):
                        if exc.code() == grpc.StatusCode.NOT_FOUND:
                            return  # removed meanwhile
                        broke_off(exc, f"the output of {self._container_id}")
                    await self._clock.sleep(_RETRY_S)
                    if self._vm_ended():
                        return
                except OSError as exc:
                    self._hold(exc)
                    await self._clock.sleep(_DISK_RETRY_S)
        finally:
            self._writer.close()

    async def _run_once(self) -> None:
        call = self._stub.Output(wait_for_ready=True)
        self._batch, self._waiting_bytes = [], 0
        self._arrived.clear()
        self._room.set()
        try:
            await call.write(guest_pb2.OutputAck(container_id=self._container_id))
            first = await call.read()
            if not isinstance(first, guest_pb2.OutputRecord):
                await self._raise_status(call)
                return
            self._resume(first)
            self._go_on()
            async with together() as group:
                reader = group.create_task(
                    self._read(call), name=f"output reader of {self._container_id}"
                )
                await self._write(call)
                reader.cancel()
        finally:
            call.cancel()

    def _resume(self, first: guest_pb2.OutputRecord) -> None:
        if not first.HasField("resume") or len(first.resume.cookie) > MAX_COOKIE_BYTES:
            raise GuestMisbehaved("the guest did not begin an output stream with its last place")
        try:
            self._writer.resume(first.resume.cookie)
        except Invalid as exc:
            raise GuestMisbehaved(str(exc)) from exc
        self._acked, self._cookie = first.resume.acked_seq, first.resume.cookie

    async def _read(self, call: Any) -> None:
        begin = seq = self._acked
        while True:
            record = await call.read()
            if not isinstance(record, guest_pb2.OutputRecord):
                await self._raise_status(call)
                if seq == begin:
                    # An earlier agent has had it all, the last record too.
                    self.complete.set()
                    self._arrived.set()
                    return
                # A stream that ends well without its last record has broken off all the same.
                raise grpc.aio.AioRpcError(
                    grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata()
                )
            if record.seq != seq + 1 or len(record.data) > MAX_RECORD_BYTES:
                raise GuestMisbehaved(
                    f"the guest sent output record {record.seq} of {len(record.data)} bytes "
                    f"after record {seq}"
                )
            seq = record.seq
            self._batch.append(record)
            self._waiting_bytes += len(record.data) + _RECORD_BYTES
            self._arrived.set()
            if record.eof:
                return
            if self._waiting_bytes > _MAX_WAITING_BYTES:
                self._room.clear()
                await self._room.wait()

    async def _write(self, call: Any) -> None:
        """Write what has arrived, as much at once as there is, until the last record is in."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batch, size = self._batch, self._waiting_bytes
            self._batch, self._waiting_bytes = [], 0
            self._room.set()
            if not batch:
                if self.complete.is_set():
                    return
                continue
            await self._append(batch, size)
            self.progress += 1
            last = batch[-1]
            await call.write(
                guest_pb2.OutputAck(
                    container_id=self._container_id, acked_seq=last.seq, cookie=self._cookie
                )
            )
            self._acked = last.seq
            if last.eof:
                self.complete.set()
                await call.done_writing()
                return

    async def _append(self, batch: list[guest_pb2.OutputRecord], size: int) -> None:
        """Write a batch, however long it has to wait for room."""
        while True:
            try:
                if self.held:
                    # Whoever makes room may have removed the file that is open here.
                    self._writer.resume(self._cookie)
                if size > _OWN_THREAD_BYTES:
                    self._cookie = await asyncio.to_thread(self._writer.append, batch)
                else:
                    self._cookie = self._writer.append(batch)
            except OSError as exc:
                self._hold(exc)
                await self._clock.sleep(_DISK_RETRY_S)
            else:
                self._go_on()
                return

    def _hold(self, error: OSError) -> None:
        self.waits_for_room = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = error.strerror or str(error)
        if why == self.held:
            return
        _log.warning(
            "a container's log cannot be written; its writer waits",
            container=self._container_id,
            path=str(self._writer.path),
            error=str(error),
        )
        self.held = why
        self._on_held()

    def _go_on(self) -> None:
        self.waits_for_room = False
        if self.held:
            _log.info("a container's log is written again", container=self._container_id)
            self.held = ""
            self._on_held()

    async def _raise_status(self, call: Any) -> None:
        code = await call.code()
        if code is grpc.StatusCode.OK:
            return
        if code is grpc.StatusCode.NOT_FOUND:
            _log.info("the guest does not know a container", container=self._container_id)
        raise grpc.aio.AioRpcError(
            code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=await call.details()
        )
