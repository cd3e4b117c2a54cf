"""The command `vk-provider`: reads settings, wires the rooms together, says in words what failed.

Decides nothing about pods, nodes or VMs. Commands import what they run when they run it, so that
`--help` is quick.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from vk_provider.common.errors import Invalid, VkError

_COMMANDS = {
    "run": "vk_provider.cli.run",
    "node": "vk_provider.cli.node",
    "agent": "vk_provider.cli.agent",
    "doctor": "vk_provider.cli.doctor",
    "top": "vk_provider.cli.top",
    "usage": "vk_provider.cli.usage",
    "images": "vk_provider.cli.images",
    "version": "vk_provider.cli.version",
}


class _Commands(click.Group):
    """Commands that are imported when they are needed, listed in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def _commands() -> None:
    """Pods without nodes: a Kubernetes node that runs each pod as a microVM of its own.

    \b
    Try it on a host with QEMU, as root:
      vk-provider doctor --kubeconfig ~/.kube/config
      vk-provider run --node-name vk-1 --bootstrap-kubeconfig bootstrap.kubeconfig
    \b
    Run the two parts as services of their own, so that each can be restarted or upgraded alone;
    pods go on meanwhile:
      vk-provider agent
      vk-provider node --node-name vk-1 --bootstrap-kubeconfig bootstrap.kubeconfig

    Every option can be given in the environment too: --node-name as VK_NODE_NAME, and so on.
    Exit codes: 0 all went well, 1 it failed (the reason is on stderr), 2 wrong usage.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit with its code."""
    try:
        code = _commands.main(arguments, prog_name="vk-provider", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except BaseExceptionGroup as group:
        expected, rest = group.split(VkError)
        if rest is not None:
            raise
        sys.exit(_tell(_first(expected)))
    except VkError as exc:
        sys.exit(_tell(exc))
    sys.exit(code if isinstance(code, int) else 0)


def _tell(error: BaseException | None) -> int:
    click.echo(f"vk-provider: {error}", err=True)
    # A refusal by the API server may be of the kind Invalid too; that is no wrong usage.
    return 2 if type(error) is Invalid else 1


def _first(group: BaseException | None) -> BaseException | None:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
