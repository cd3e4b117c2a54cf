"""`vk-provider usage`: what is billed."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from vk_provider.cli.options import agent_socket, as_json

if TYPE_CHECKING:
    from vk_provider._pb import sandbox_pb2 as pb

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _since(_: click.Context, __: click.Parameter, text: str | None) -> int:
    """Return how long ago (90m, 12h, 7d) or RFC 3339 as nanoseconds since the epoch; 0 for None."""
    if text is None:
        return 0
    if match := re.fullmatch(r"(\d+)([smhd])", text):
        return time.time_ns() - int(match[1]) * _UNITS_S[match[2]] * 1_000_000_000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise click.BadParameter(
            f"{text!r} is no time; write 90m, 12h, 7d or 2030-01-31T12:00:00Z"
        ) from exc
    if moment.tzinfo is None:
        raise click.BadParameter(f"{text!r} names no time zone; add Z for UTC")
    return round(moment.timestamp() * 1e9)


@click.command()
@click.option(
    "--since",
    callback=_since,
    metavar="TIME",
    help="Only VMs that still ran then, or started later: 90m, 12h, 7d, or an RFC 3339 time.",
)
@click.option("--pod-uid", default="", metavar="UID", help="Only this pod's.")
@agent_socket
@as_json
def usage(since: int, pod_uid: str, agent_socket: Path, as_json: bool) -> None:
    """Show what each pod's VM is billed: its size, for the seconds from its start to its end.

    CPU TIME is what the pod used, by its own counters; VM CPU adds what emulating it took. A
    length with ~ is a lower bound: the VM ended while nobody watched.
    """
    from vk_provider.cli.text import duration, moment, size, table

    records = asyncio.run(_records(agent_socket, since, pod_uid))
    if as_json:
        items = [
            {
                "namespace": r.pod.namespace,
                "name": r.pod.name,
                "uid": r.pod.uid,
                "sandbox_id": r.sandbox_id,
                "cpu_milli": r.shape.cpu_milli,
                "memory_bytes": r.shape.memory_bytes,
                "started_at_ns": r.started_at_ns,
                "ended_at_ns": r.ended_at_ns,
                "billed_s": r.billed_s,
                "cpu_ns": r.cpu_ns,
                "vm_cpu_ns": r.vm_cpu_ns,
                "end_estimated": r.end_estimated,
                "ended_before_ns": r.ended_before_ns,
            }
            for r in records
        ]
        click.echo(orjson.dumps(items, option=orjson.OPT_INDENT_2).decode())
        return
    rows = [
        (
            f"{r.pod.namespace}/{r.pod.name}",
            f"{r.shape.cpu_milli / 1000:g} vCPU, {size(r.shape.memory_bytes)}",
            moment(r.started_at_ns),
            f"{'~' if r.end_estimated else ''}{duration(r.billed_s)}",
            str(r.billed_s),
            f"{r.cpu_ns / 1e9:.2f} s",
            f"{r.vm_cpu_ns / 1e9:.2f} s",
            moment(r.ended_at_ns) if r.ended_at_ns else "running",
        )
        for r in records
    ]
    table(
        ("POD", "SIZE", "STARTED", "LENGTH", "BILLED S", "CPU TIME", "VM CPU", "ENDED"),
        rows,
    )


async def _records(socket: Path, since_ns: int, pod_uid: str) -> list[pb.UsageRecord]:
    from vk_provider.cli.agent_client import open_runtime

    async with open_runtime(socket) as runtime:
        return await runtime.list_usage_records(since_ns, pod_uid)
