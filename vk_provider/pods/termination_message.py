"""What a container says about its end (kuberuntime getTerminationMessage).

The file is the guest's word, which the agent cuts at 4 KiB; the tail of the log is cut here. The
pod's 12 KiB are shared out where its status is made.
"""

from __future__ import annotations

from contextlib import aclosing

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import VkError
from vk_provider.runtime.api import Runtime

FALLBACK_TO_LOGS = "FallbackToLogsOnError"

_FILE_BYTES = 4096
_LOG_LINES = 80
_LOG_BYTES = 2048


def wants_log(status: pb.ContainerStatus, policy: str) -> bool:
    """Say whether the end of the log stands in for an empty message."""
    return (
        policy == FALLBACK_TO_LOGS
        and status.state == pb.CONTAINER_EXITED
        and status.exit_code != 0
        and status.reason not in ("ContainerCannotRun", "StartError")
        and not status.termination_message
    )


async def termination_message(runtime: Runtime, status: pb.ContainerStatus, policy: str) -> str:
    """Return the message of an exited container, "" where there is none.

    `policy` is its terminationMessagePolicy. A log that can't be read is said in the message.
    """
    if wants_log(status, policy):
        text = await _log_tail(runtime, status.container_id)
    else:
        text = status.termination_message[:_FILE_BYTES].decode(errors="replace")
    if status.message and text:
        return f"{status.message}: {text}"
    return status.message or text


async def _log_tail(runtime: Runtime, container_id: str) -> str:
    request = pb.ReadLogsRequest(container_id=container_id, tail_lines=_LOG_LINES)
    tail = b""
    try:
        async with aclosing(runtime.read_logs(request)) as chunks:
            async for chunk in chunks:
                tail = (tail + chunk)[-_LOG_BYTES:]
    except VkError as exc:
        return f"Error on reading termination message from logs: {exc}"
    return tail.decode(errors="replace")
