"""`vk-provider run`: node and agent together, as two processes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click

from vk_provider.cli.agent import agent
from vk_provider.cli.node import node
from vk_provider.cli.processes import run_until_signal

_PARTS = (node, agent)


def _all_options() -> list[click.Parameter]:
    """Return the options of both parts, one of each name."""
    found: dict[str, click.Parameter] = {}
    for part in _PARTS:
        for parameter in part.params:
            if parameter.name is not None and not _runs_alone(parameter):
                found.setdefault(parameter.name, parameter)
    return list(found.values())


def _runs_alone(parameter: click.Parameter) -> bool:
    """Tell whether an option makes its command do one thing and end (--remove-all)."""
    return parameter.name == "remove_all"


@click.command(params=_all_options())
@click.pass_context
def run(ctx: click.Context, /, **_: Any) -> None:
    """Run node and agent together, as two processes: the simplest way to start.

    Takes the options of both (`vk-provider node --help`, `vk-provider agent --help`). A part that
    dies is started again, after a pause that grows. SIGTERM or Ctrl-C ends both and leaves the
    pods running; the next start finds them again.
    """
    from vk_provider.cli.supervisor import Part, supervise
    from vk_provider.common.logging import set_up

    set_up(str(ctx.params.get("log_level") or "info"))
    # Both must mean the same one, wherever the agent's run folder is.
    socket = ctx.params["agent_socket"]
    if ctx.get_parameter_source("agent_socket") is click.core.ParameterSource.DEFAULT:
        socket = ctx.params["agent_run_dir"] / socket.name
    parts = [
        Part(
            str(command.name),
            [
                sys.executable,
                "-m",
                "vk_provider.cli",
                str(command.name),
                f"--agent-socket={socket}",
                *_arguments(ctx, command),
            ],
        )
        for command in reversed(_PARTS)
    ]
    run_until_signal(supervise(parts))


def _arguments(ctx: click.Context, command: click.Command) -> Iterable[str]:
    """Return the options that were given, as `command` takes them.

    What comes from the environment is left there: children inherit it.
    """
    known = {p.name: p for p in command.params}
    for name, value in ctx.params.items():
        parameter = known.get(name)
        given = ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if not isinstance(parameter, click.Option) or not given or name == "agent_socket":
            continue
        if parameter.is_flag:
            names = parameter.opts if value else parameter.secondary_opts
            yield max(names, key=len)
            continue
        for item in value if parameter.multiple else [value]:
            yield f"{max(parameter.opts, key=len)}={item}"
