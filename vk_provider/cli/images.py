"""`vk-provider images`: what the agent's store holds."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from vk_provider.cli.options import agent_socket, as_json
from vk_provider.common.errors import Internal

if TYPE_CHECKING:
    from vk_provider._pb import sandbox_pb2 as pb


@click.group()
def images() -> None:
    """List, pull and remove the images on this host.

    Pods pull what they need by themselves; pulling ahead makes their first start quick.
    """


@images.command("list")
@agent_socket
@as_json
def list_images(agent_socket: Path, as_json: bool) -> None:
    """List the images, the largest first."""
    from vk_provider.cli.text import moment, size, table

    found = sorted(asyncio.run(_list(agent_socket)), key=lambda i: -i.size_bytes)
    if as_json:
        items = [
            {
                "id": i.image_ref,
                "tags": list(i.repo_tags),
                "digests": list(i.repo_digests),
                "size_bytes": i.size_bytes,
                "pulled_at_ns": i.pulled_at_ns,
                "last_used_at_ns": i.last_used_at_ns,
                "in_use": i.in_use,
            }
            for i in found
        ]
        click.echo(orjson.dumps(items, option=orjson.OPT_INDENT_2).decode())
        return
    rows = [
        (
            next(iter([*i.repo_tags, *i.repo_digests]), "-"),
            i.image_ref.removeprefix("sha256:")[:12],
            size(i.size_bytes),
            moment(i.pulled_at_ns),
            "yes" if i.in_use else "no",
        )
        for i in found
    ]
    table(("IMAGE", "ID", "SIZE", "PULLED", "IN USE"), rows)


@images.command()
@click.argument("image")
@agent_socket
def pull(image: str, agent_socket: Path) -> None:
    """Pull IMAGE without credentials (private ones are pulled by pods, with their secrets)."""
    asyncio.run(_pull(agent_socket, image))


@images.command()
@click.argument("image")
@agent_socket
def remove(image: str, agent_socket: Path) -> None:
    """Remove IMAGE (a name, a digest or an id); one that a pod uses stays."""
    asyncio.run(_remove(agent_socket, image))
    click.echo(f"{image} is removed")


async def _list(socket: Path) -> list[pb.Image]:
    from vk_provider.cli.agent_client import open_runtime

    async with open_runtime(socket) as runtime:
        return await runtime.list_images()


async def _remove(socket: Path, image: str) -> None:
    from vk_provider.cli.agent_client import open_runtime

    async with open_runtime(socket) as runtime:
        await runtime.remove_image(image)


async def _pull(socket: Path, image: str) -> None:
    from vk_provider.cli.agent_client import open_runtime
    from vk_provider.cli.text import size

    told = ""
    pulled = None
    async with open_runtime(socket) as runtime, aclosing(runtime.pull_image(image)) as progress:
        async for step in progress:
            done = size(step.bytes_done)
            said = (
                f"{step.phase} {done} of {size(step.bytes_total)}"
                if step.bytes_total
                else step.phase
            )
            if said != told:
                click.echo(said, err=True)
            told = said
            if step.HasField("image"):
                pulled = step.image
    if pulled is None:
        raise Internal(f"The agent ended the pull of {image} without an image")
    click.echo(f"{image} is here: {pulled.image_ref}, {size(pulled.size_bytes)}")
