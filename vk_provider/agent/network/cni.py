"""Runs CNI plugins (CNI specification 1.0, sections 2 to 4)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from vk_provider.agent.network.conflist import Conflist, plugin_config
from vk_provider.agent.tools import PIPE, tool
from vk_provider.common.errors import (
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    Internal,
    Unavailable,
)

INTERFACE = "eth0"


@dataclass(frozen=True)
class CniCall:
    """Whose network is changed: the same for ADD and for the DEL that undoes it."""

    container_id: str
    netns: str  # a path
    args: str  # CNI_ARGS


class CniPlugins:
    """Plugins in a list of directories."""

    def __init__(self, directories: Sequence[Path], timeout_s: float) -> None:
        self._directories = tuple(directories)
        self._timeout_s = timeout_s

    async def add(
        self, conflist: Conflist, runtime: dict[str, Any], call: CniCall
    ) -> dict[str, Any]:
        """Run ADD through the list and return the last result.

        Raises Exhausted (no address left), FailedPrecondition (no such plugin), Unavailable and
        DeadlineExceeded; then some plugins may have acted, and `delete` undoes them.
        """
        result: dict[str, Any] | None = None
        for plugin in conflist.plugins:
            config = plugin_config(conflist, plugin, runtime, result)
            output = await self._run("ADD", plugin["type"], config, call)
            result = _parse_result(plugin["type"], output)
        if result is None:
            raise Internal(f"the CNI configuration {conflist.source} lists no plugins")
        return result

    async def delete(
        self,
        conflist: Conflist,
        runtime: dict[str, Any],
        call: CniCall,
        result: dict[str, Any] | None,
    ) -> None:
        """Run DEL through the list backwards; a repeat is harmless. Raises as `add`."""
        for plugin in reversed(conflist.plugins):
            config = plugin_config(conflist, plugin, runtime, result)
            await self._run("DEL", plugin["type"], config, call)

    def missing(self, conflist: Conflist) -> list[str]:
        """Return the plugins of a configuration that are in none of the directories."""
        kinds = {plugin["type"] for plugin in conflist.plugins}
        kinds |= {plugin["ipam"]["type"] for plugin in conflist.plugins if _has_ipam(plugin)}
        return sorted(kind for kind in kinds if self._find(kind) is None)

    def _find(self, kind: str) -> Path | None:
        for directory in self._directories:
            path = directory / kind
            if os.access(path, os.X_OK):
                return path
        return None

    async def _run(self, command: str, kind: str, config: bytes, call: CniCall) -> bytes:
        path = self._find(kind)
        if path is None:
            places = ", ".join(map(str, self._directories))
            raise FailedPrecondition(
                f"the CNI plugin {kind} is in none of {places}; "
                "install it (Debian: containernetworking-plugins)"
            )
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": call.container_id,
            "CNI_NETNS": call.netns,
            "CNI_IFNAME": INTERFACE,
            "CNI_ARGS": call.args,
            "CNI_PATH": ":".join(map(str, self._directories)),
        }
        async with tool(
            [path],
            package="containernetworking-plugins",
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=environment,
        ) as process:
            try:
                async with asyncio.timeout(self._timeout_s):
                    stdout, stderr = await process.communicate(config)
            except TimeoutError as exc:
                raise DeadlineExceeded(
                    f"the CNI plugin {kind} did not finish {command} in {self._timeout_s:g} s"
                ) from exc
        if process.returncode != 0:
            raise _plugin_error(command, kind, process.returncode or 0, stdout, stderr)
        return stdout


def _has_ipam(plugin: dict[str, Any]) -> bool:
    ipam = plugin.get("ipam")
    return isinstance(ipam, dict) and isinstance(ipam.get("type"), str) and bool(ipam["type"])


def _parse_result(kind: str, output: bytes) -> dict[str, Any]:
    try:
        result = orjson.loads(output)
    except orjson.JSONDecodeError as exc:
        raise Internal(
            f"the CNI plugin {kind} answered ADD with no JSON: {output[:200]!r}"
        ) from exc
    if not isinstance(result, dict):
        raise Internal(f"the CNI plugin {kind} answered ADD with no JSON object: {output[:200]!r}")
    return result


def _plugin_error(command: str, kind: str, code: int, stdout: bytes, stderr: bytes) -> Exception:
    """Return the error for a plugin that failed: its own words, in one sentence."""
    words = ""
    try:
        value = orjson.loads(stdout)
    except orjson.JSONDecodeError:
        words = stdout.decode(errors="replace").strip()
    else:
        if isinstance(value, dict):
            parts = (str(value.get("msg", "")), str(value.get("details", "")))
            words = ": ".join(part for part in parts if part)
    complaint = stderr.decode(errors="replace").strip()
    words = "; ".join(part for part in (words, complaint) if part) or "it said nothing"
    sentence = f"the CNI plugin {kind} failed at {command} (exit code {code}): {words[:2000]}"
    if "no IP addresses available" in words:
        return Exhausted(sentence)
    return Unavailable(sentence)
