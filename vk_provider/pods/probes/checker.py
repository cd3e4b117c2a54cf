"""One round of a probe: the check, its retries, and the words for events (prober.go)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vk_provider.common.errors import DeadlineExceeded, VkError
from vk_provider.pods.expansion import expand_all
from vk_provider.pods.podspec import Container, Pod, describe
from vk_provider.pods.probes.http_check import check_http
from vk_provider.pods.probes.model import (
    OUTPUT_LIMIT_BYTES,
    Answer,
    CheckError,
    ProbeKind,
    ProbeResult,
    ProbeSpec,
)
from vk_provider.pods.probes.socket_checks import check_grpc, check_tcp
from vk_provider.runtime.api import Runtime
from vk_provider.runtime.exec_sync import exec_sync

_TRIES = 3

UNHEALTHY = "Unhealthy"
PROBE_WARNING = "ProbeWarning"


@dataclass(frozen=True, slots=True)
class Target:
    """The run of a container that is probed."""

    pod: Pod
    container: Container
    container_id: str
    pod_ip: str


@dataclass(frozen=True, slots=True)
class Round:
    """What a round found (None: nothing), and the (reason, message) of its Warning event."""

    result: ProbeResult | None
    event: tuple[str, str] | None = None


async def probe_once(runtime: Runtime, spec: ProbeSpec, target: Target) -> Round:
    """Check once; only where the check can't be made, try up to three times."""
    failure = ""
    for _ in range(_TRIES):
        try:
            return _judge(spec.kind, await _check(runtime, spec, target))
        except CheckError as exc:
            failure = str(exc)
    message = f"{spec.kind.value} probe errored and resulted in unknown state: {failure}"
    return Round(None, (UNHEALTHY, message))


def _judge(kind: ProbeKind, answer: Answer) -> Round:
    if not answer.success:
        event = (UNHEALTHY, f"{kind.value} probe failed: {answer.output}")
        return Round(ProbeResult.FAILURE, event)
    if answer.warning:
        event = (PROBE_WARNING, f"{kind.value} probe warning: {answer.output}")
        return Round(ProbeResult.SUCCESS, event)
    return Round(ProbeResult.SUCCESS)


async def _check(runtime: Runtime, spec: ProbeSpec, target: Target) -> Answer:
    handler, container = spec.handler, target.container
    if (action := handler.get("exec")) is not None:
        return await _check_exec(runtime, action, target, spec.timeout_s)
    if (action := handler.get("httpGet")) is not None:
        return await check_http(action, container, target.pod_ip, spec.timeout_s)
    if (action := handler.get("tcpSocket")) is not None:
        return await check_tcp(action, container, target.pod_ip, spec.timeout_s)
    if (action := handler.get("grpc")) is not None:
        return await check_grpc(action, target.pod_ip, spec.timeout_s)
    raise CheckError(f"missing probe handler for {describe(target.pod)}:{container['name']}")


async def _check_exec(
    runtime: Runtime, action: Mapping[str, list[str]], target: Target, timeout_s: float
) -> Answer:
    # Only values that stand in the spec are put in, not those from objects or fields.
    fixed = {
        variable["name"]: variable.get("value") or ""
        for variable in target.container.get("env") or ()
    }
    command = expand_all(action.get("command") or (), fixed)
    try:
        result = await exec_sync(
            runtime, target.container_id, command, timeout_s, OUTPUT_LIMIT_BYTES
        )
    except DeadlineExceeded as exc:
        return Answer(False, str(exc))
    except VkError as exc:
        raise CheckError(str(exc)) from exc
    if result.error:
        raise CheckError(result.error)
    output = (result.stdout + result.stderr)[:OUTPUT_LIMIT_BYTES]
    return Answer(result.code == 0, output.decode(errors="replace"))
