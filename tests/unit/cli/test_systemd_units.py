"""The units that are shipped start what there is, in words that it knows."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import click
import pytest

from vk_provider.cli.agent import agent
from vk_provider.cli.node import node

UNITS = Path(__file__).parents[3] / "hack" / "systemd"
COMMANDS = {"agent": agent, "node": node}


def service(name: str) -> configparser.SectionProxy:
    unit = configparser.RawConfigParser(delimiters=["="], comment_prefixes=["#", ";"])
    unit.optionxform = lambda optionstr: optionstr  # type: ignore[method-assign]
    unit.read_string((UNITS / f"vk-provider-{name}.service").read_text())
    return unit["Service"]


def test_there_is_a_unit_for_each_part() -> None:
    shipped = {path.name for path in UNITS.iterdir()}
    assert shipped == {f"vk-provider-{name}.service" for name in COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_unit_starts_its_part_with_options_that_exist(name: str) -> None:
    program, command, *options = shlex.split(service(name)["ExecStart"])
    assert program.startswith("/")
    assert (Path(program).name, command) == ("vk-provider", name)
    known = COMMANDS[name]
    _, rest, _ = known.make_parser(click.Context(known)).parse_args(options)
    assert rest == []


@pytest.mark.parametrize("name", COMMANDS)
def test_both_parts_take_their_settings_from_one_file(name: str) -> None:
    assert service(name)["EnvironmentFile"] == "-/etc/default/vk-provider"


def test_pods_outlive_the_agents_unit() -> None:
    assert service("agent")["KillMode"] == "process"
