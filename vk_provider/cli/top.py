"""`vk-provider top`: what pods use, as it happens."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path

import click

from vk_provider.cli.options import agent_socket


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each second.")
@click.option(
    "-n",
    "--samples",
    type=click.IntRange(0),
    default=0,
    help="End after so many samples; 0 for never.",
)
@agent_socket
def top(as_json: bool, samples: int, agent_socket: Path) -> None:
    """Show what each pod and container uses, a sample each second.

    CPU is what the pod uses in its VM; VM is what the VM takes of the host, the pod's share
    included. Ctrl-C ends it.
    """
    try:
        asyncio.run(_follow(agent_socket, as_json=as_json, samples=samples))
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # the reader (head, jq) has had enough
        sys.stderr.close()


async def _follow(socket: Path, *, as_json: bool, samples: int) -> None:
    from vk_provider.cli.agent_client import open_runtime
    from vk_provider.cli.top_view import LiveTable, json_line

    view = None if as_json else LiveTable()
    count = 0
    async with open_runtime(socket) as runtime, aclosing(runtime.watch_usage()) as snapshots:
        async for snapshot in snapshots:
            if view is None:
                click.echo(json_line(snapshot))
                sys.stdout.flush()
            else:
                view.show(snapshot)
            count += 1
            if samples and count >= samples:
                break
    if view is not None:
        view.close()
