"""How options look: each has a name, an environment variable of that name, and a help text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

DEFAULT_SOCKET = Path("/run/vk-provider/agent/agent.sock")
DEFAULT_NODE_STATE = Path("/var/lib/vk-provider/node")


def option(name: str, **attributes: Any) -> Callable[[_F], _F]:
    """`--some-name`, with the default shown and VK_SOME_NAME read too."""
    attributes.setdefault("show_default", attributes.get("default") not in (None, "", False))
    attributes.setdefault(
        "envvar", "VK_" + name.lstrip("-").split("/")[0].upper().replace("-", "_")
    )
    return click.option(name, **attributes)


def agent_socket(function: _F) -> _F:
    """Add --agent-socket."""
    return option(
        "--agent-socket",
        type=click.Path(path_type=Path),
        callback=_default_socket,
        metavar="PATH",
        help="The agent's unix socket. [default: agent.sock in the agent's run folder, which is "
        f"{DEFAULT_SOCKET.parent}]",
    )(function)


def _default_socket(ctx: click.Context, _: click.Parameter, value: Path | None) -> Path:
    if value is not None:
        return value
    folder = ctx.params.get("agent_run_dir")
    return Path(folder) / DEFAULT_SOCKET.name if folder else DEFAULT_SOCKET


def log_level(function: _F) -> _F:
    """Add --log-level."""
    return option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        help="How much is said on stderr (text on a terminal, else JSON lines).",
    )(function)


def as_json(function: _F) -> _F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(
        function
    )
