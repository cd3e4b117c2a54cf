"""TCP and gRPC probes (pkg/probe/{tcp,grpc})."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from vk_provider.pods.podspec import Container
from vk_provider.pods.probes.model import Answer
from vk_provider.pods.probes.ports import host_port, resolve_port

_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_HEALTH_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING = 1
_GRPC_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.primary_user_agent", "kube-probe/1.37"),
    ("grpc.use_local_subchannel_pool", 1),
)


async def check_tcp(
    action: Mapping[str, Any], container: Container, pod_ip: str, timeout_s: float
) -> Answer:
    """Return success where a connection can be opened; raises CheckError for no such port."""
    port = resolve_port(action.get("port"), container)
    host = action.get("host") or pod_ip
    target = host_port(host, port)
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Answer(False, f"dial tcp {target}: i/o timeout")
    except OSError as exc:
        return Answer(False, f"dial tcp {target}: connect: {_reason(exc)}")
    except UnicodeError as exc:  # what the resolver says of a name that can't be one
        return Answer(False, f"dial tcp: lookup {host}: {exc}")
    # Aborted, not closed: a guest that never answers the FIN would hold the socket.
    writer.transport.abort()
    return Answer(True)


def _reason(exc: OSError) -> str:
    return os.strerror(exc.errno).lower() if exc.errno and exc.errno > 0 else str(exc)


async def check_grpc(action: Mapping[str, Any], pod_ip: str, timeout_s: float) -> Answer:
    """Return success where the health service says SERVING.

    The two messages have one field each and the wire format of protobuf's own wrappers: a string
    there, an enumeration here.
    """
    target = host_port(pod_ip, int(action.get("port") or 0))
    async with grpc.aio.insecure_channel(target, options=_GRPC_OPTIONS) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[StringValue, Int32Value] = channel.unary_unary(
            _HEALTH_CHECK,
            request_serializer=StringValue.SerializeToString,
            response_deserializer=Int32Value.FromString,
        )
        try:
            async with asyncio.timeout(timeout_s):
                await channel.channel_ready()
        except TimeoutError:
            return Answer(
                False, f'timeout: failed to connect service "{target}" within {timeout_s:g}s'
            )
        try:
            answer = await check(StringValue(value=action.get("service") or ""), timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            return Answer(False, _rpc_failure(exc, timeout_s))
    if answer.value != _SERVING:
        state = _HEALTH_STATES.get(answer.value, str(answer.value))
        return Answer(False, f'service unhealthy (responded with "{state}")')
    return Answer(True, "service healthy")


def _rpc_failure(exc: grpc.aio.AioRpcError, timeout_s: float) -> str:
    match exc.code():
        case grpc.StatusCode.UNIMPLEMENTED:
            return (
                "error: this server does not implement the grpc health protocol "
                f"(grpc.health.v1.Health): {exc.details()}"
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"timeout: health rpc did not complete within {timeout_s:g}s"
        case code:
            return f"error: health rpc probe failed: {code.name}: {exc.details()}"
