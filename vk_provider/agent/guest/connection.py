"""Channels to the guest agent, one for each virtio-serial port."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from vk_provider._pb import guest_pb2 as pb
from vk_provider._pb import guest_pb2_grpc as rpc
from vk_provider.common.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    Unavailable,
)

if TYPE_CHECKING:
    Stub = rpc.GuestServiceAsyncStub

PROTOCOL_VERSION = 1

# A message is read as a whole before it can be looked at, and one of nothing but empty parts takes
# forty times its size then. So each is bounded by what an honest guest may have to say.
_MAX_CONTROL_BYTES = 256 * 1024  # every container of a pod, each with a termination message
_MAX_BULK_BYTES = 128 * 1024  # an output record, or a piece of a stream
_MAX_STREAM_BYTES = {"Events": 32 * 1024, "TakeStats": 128 * 1024}
_MAX_RECEIVE = "grpc.max_receive_message_length"
_MAX_SEND_BYTES = 32 * 1024 * 1024  # a volume's files go in one message
_HANDSHAKE_MS = 120_000


def _service_config() -> str:
    """Return the bounds of single calls' messages, in gRPC's own words."""
    service = "vk_provider.guest.v1.GuestService"
    calls = [
        {
            "name": [{"service": service, "method": method}],
            "maxResponseMessageBytes": most,
        }
        for method, most in _MAX_STREAM_BYTES.items()
    ]
    return json.dumps({"methodConfig": calls})


_OPTIONS: tuple[tuple[str, str | int], ...] = (
    # grpcio would send the socket's path, which the guest's HTTP/2 library refuses.
    ("grpc.default_authority", "localhost"),
    # Also the deadline of the HTTP/2 handshake. A port has no connect: whoever gives up in the
    # middle of a handshake leaves its bytes to the next connection. So do not give up early.
    ("grpc.min_reconnect_backoff_ms", _HANDSHAKE_MS),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Two channels to one address must never share a connection, nor must a new one find an old.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.keepalive_time_ms", 2**31 - 1),
    ("grpc.http2.bdp_probe", 0),  # pings that would wake an idle guest
    ("grpc.enable_retries", 0),
    ("grpc.service_config", _service_config()),
    ("grpc.max_send_message_length", _MAX_SEND_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
)


class GuestConnection:
    """The stubs of one guest: `control` for short calls, `bulk` for streams with much data.

    control, bulk: addresses of the ports' sockets as `Vm.control` and `Vm.bulk` give them. The
    channels connect at the first call, wait for a guest that is still booting, and connect again
    by themselves. Whoever makes a GuestConnection closes it. At most one may be open for a VM.
    """

    def __init__(self, control: str, bulk: str) -> None:
        self._control_channel = grpc.aio.insecure_channel(
            control, options=[*_OPTIONS, (_MAX_RECEIVE, _MAX_CONTROL_BYTES)]
        )
        self._bulk_channel = grpc.aio.insecure_channel(
            bulk, options=[*_OPTIONS, (_MAX_RECEIVE, _MAX_BULK_BYTES)]
        )
        self.control: Stub = rpc.GuestServiceStub(self._control_channel)
        self.bulk: Stub = rpc.GuestServiceStub(self._bulk_channel)
        self._address = control

    async def hello(self, deadline_s: float) -> pb.HelloResponse:
        """Wait until the guest agent answers.

        Raises DeadlineExceeded when it has not within that time, Unavailable when the connection
        broke, FailedPrecondition when it speaks another contract, Internal for anything else.
        """
        request = pb.HelloRequest(protocol_version=PROTOCOL_VERSION)
        try:
            answer = await self.control.Hello(request, timeout=deadline_s, wait_for_ready=True)
        except grpc.aio.AioRpcError as exc:
            raise self._translated(exc, deadline_s) from exc
        check_hello(answer)
        return answer

    def connect(self) -> None:
        """Begin to connect both ports without waiting for it."""
        self._control_channel.get_state(try_to_connect=True)
        self._bulk_channel.get_state(try_to_connect=True)

    async def close(self) -> None:
        """Drop both connections; running calls end with CANCELLED. The guest goes on."""
        await self._control_channel.close()
        await self._bulk_channel.close()

    def _translated(self, exc: grpc.aio.AioRpcError, deadline_s: float) -> Exception:
        detail = (exc.details() or "")[:300]
        if exc.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(
                f"the guest agent behind {self._address} did not answer Hello within "
                f"{deadline_s:g} s"
            )
        if exc.code() == grpc.StatusCode.UNAVAILABLE:
            return Unavailable(f"the connection to the guest agent at {self._address}: {detail}")
        return Internal(
            f"Hello to the guest agent at {self._address} failed with {exc.code().name}: {detail}"
        )


def check_hello(answer: pb.HelloResponse) -> None:
    """Raise FailedPrecondition for a guest whose contract is not ours.

    guest.proto only grows, so a guest of an older agent that says the same version is fine.
    """
    if answer.protocol_version != PROTOCOL_VERSION:
        raise FailedPrecondition(
            f"the guest agent speaks version {answer.protocol_version} of the guest contract and "
            f"this agent {PROTOCOL_VERSION}; use a guest image that was built with this agent"
        )
