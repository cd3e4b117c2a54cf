"""The usage record of a sandbox: what is billed, from its VM's start to its end."""

from __future__ import annotations

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.context import Context
from vk_provider.agent.sandbox import Sandbox
from vk_provider.common.errors import Exhausted
from vk_provider.common.logging import get_logger

_log = get_logger("agent.metering")

_SECOND_NS = 1_000_000_000


def usage_record(sandbox: Sandbox, now_ns: int, ended_at_ns: int = 0) -> pb.UsageRecord:
    """Return the record as of now, from the last figures that are known."""
    status = sandbox.record.status
    record = pb.UsageRecord()
    if sandbox.usage is not None:
        record.CopyFrom(sandbox.usage)
    record.sandbox_id = sandbox.id
    record.pod.CopyFrom(status.pod)
    record.shape.CopyFrom(status.shape)
    record.started_at_ns = sandbox.record.started_at_ns
    record.ended_at_ns = ended_at_ns
    lasted_ns = max(0, (ended_at_ns or now_ns) - record.started_at_ns)
    record.billed_s = max(record.billed_s, -(-lasted_ns // _SECOND_NS))
    if sandbox.stats is not None:
        record.cpu_ns = max(record.cpu_ns, sandbox.stats.pod.cpu_usec * 1000)
    return record


def close_usage(context: Context, sandbox: Sandbox) -> None:
    """Write the end of what is billed; nothing where no VM ever started, or it is written."""
    if not sandbox.record.started_at_ns:
        return
    if sandbox.usage is not None and sandbox.usage.ended_at_ns:
        return
    ended = sandbox.record.status.ended_at_ns or context.clock.now_ns()
    sandbox.usage = usage_record(sandbox, ended, ended)
    try:
        context.store.put_usage([sandbox.usage])
    except Exhausted as exc:
        # A full disk must not keep a VM alive; what was written last stands.
        _log.warning("the end of a VM's use was not written", sandbox=sandbox.id, why=str(exc))


def estimate_end(context: Context, sandbox: Sandbox) -> None:
    """Write the end of a VM that ended while nobody watched: between the last sample and now.

    The lower bound is billed.
    """
    if sandbox.usage is None or sandbox.usage.ended_at_ns:
        return
    record = sandbox.usage
    now = context.clock.now_ns()
    record.ended_at_ns = min(record.started_at_ns + record.billed_s * _SECOND_NS, now)
    record.end_estimated = True
    record.ended_before_ns = now
    context.store.put_usage([record])
