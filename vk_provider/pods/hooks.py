"""Lifecycle hooks: postStart and preStop (pkg/kubelet/lifecycle/handlers.go)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from vk_provider.common.clock import Clock
from vk_provider.common.errors import VkError
from vk_provider.pods.errors import HookError
from vk_provider.pods.podspec import Container, Pod, describe, go_quote
from vk_provider.pods.probes.http_check import HttpRequest, make_request, send
from vk_provider.pods.probes.model import CheckError
from vk_provider.runtime.api import Runtime
from vk_provider.runtime.exec_sync import exec_sync

_OUTPUT_LIMIT_BYTES = 10 * 1024


async def run_hook(
    runtime: Runtime,
    pod: Pod,
    container: Container,
    container_id: str,
    handler: Mapping[str, Any],
    *,
    pod_ip: str,
    timeout_s: float | None,
    clock: Clock,
) -> None:
    """Run a hook to its end; raises HookError with the kubelet's message where it fails.

    `timeout_s` bounds a command and a request (None: no bound). Cancelling ends the hook, and the
    command with it. An HTTP hook succeeds with any answer, whatever its status.
    """
    where = f'for Container "{container["name"]}" in Pod "{describe(pod)}" failed - error'
    if (action := handler.get("exec")) is not None:
        await _exec(runtime, container_id, list(action.get("command") or ()), timeout_s, where)
    elif (action := handler.get("httpGet")) is not None:
        try:
            await _http(make_request(action, container, pod_ip, "lifecycle"), timeout_s)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, CheckError) as exc:
            reason = str(exc) or f"no answer within {timeout_s} s"
            raise HookError(
                f"HTTP lifecycle hook ({action.get('path') or ''}) {where}: {reason}"
            ) from exc
    elif (action := handler.get("sleep")) is not None:
        await clock.sleep(action.get("seconds") or 0)
    else:
        kinds = ", ".join(handler) or "none"
        raise HookError(f"Cannot run handler: invalid handler: {kinds}")


async def _exec(
    runtime: Runtime, container_id: str, command: list[str], timeout_s: float | None, where: str
) -> None:
    what = f"Exec lifecycle hook ([{' '.join(command)}]) {where}"
    try:
        result = await exec_sync(
            runtime, container_id, command, timeout_s or 0, _OUTPUT_LIMIT_BYTES
        )
    except VkError as exc:
        raise HookError(f'{what}: {exc}, message: ""') from exc
    if result.code != 0 or result.error:
        output = (result.stdout + result.stderr).decode(errors="replace")
        reason = result.error or f"command '{' '.join(command)}' exited with {result.code}"
        raise HookError(f"{what}: {reason}, message: {go_quote(output)}")


async def _http(request: HttpRequest, timeout_s: float | None) -> None:
    try:
        await send(request, timeout_s)
    except aiohttp.ClientConnectorSSLError:
        # Hooks that say HTTPS to a plain port worked once, and are still kept working.
        url = request.url.with_scheme("http").with_port(request.url.port)
        plain = HttpRequest(str(url), url, request.headers.copy())
        plain.headers.pop("Authorization", None)
        await send(plain, timeout_s)
