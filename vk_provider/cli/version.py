"""`vk-provider version`."""

from __future__ import annotations

import platform

import click

from vk_provider import __version__


@click.command()
def version() -> None:
    """Show the version, and which kubelet it speaks as."""
    from vk_provider.node.settings import KUBELET_VERSION

    click.echo(
        f"vk-provider {__version__} (kubelet {KUBELET_VERSION}, {platform.python_version()})"
    )
