"""What exec and attach have in common, whatever carries them: options, outcomes, resizes.

Source: `k8s.io/cri-streaming/pkg/streaming/remotecommand`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from vk_provider.common.errors import Invalid

Status = dict[str, Any]

_MAX_RESIZE_BYTES = 1024
_MAX_SIZE = 0xFFFF
_BLANK = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Which streams a client wants."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False


@dataclass(frozen=True, slots=True)
class Stdin:
    """Bytes for the process."""

    data: bytes


@dataclass(frozen=True, slots=True)
class StdinClosed:
    """No more bytes for the process will come."""


@dataclass(frozen=True, slots=True)
class Resize:
    """The client's terminal has a new size, in characters."""

    width: int
    height: int


Input = Stdin | StdinClosed | Resize


def parse_options(query: Mapping[str, str]) -> StreamOptions:
    """Read `input`, `output`, `error`, `tty` (each "1" or not); raises Invalid where none is asked.

    A terminal has one output: with `tty`, `error` is not served.
    """
    tty = query.get("tty") == "1"
    options = StreamOptions(
        stdin=query.get("input") == "1",
        stdout=query.get("output") == "1",
        stderr=query.get("error") == "1" and not tty,
        tty=tty,
    )
    if not (options.stdin or options.stdout or options.stderr):
        raise Invalid("you must specify at least 1 of stdin, stdout, stderr")
    return options


def succeeded() -> Status:
    """Return the outcome of a command that ended with 0."""
    return {"metadata": {}, "status": "Success"}


def exited(code: int) -> Status:
    """Return the outcome of a command that ended with another code."""
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit code {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failed(what: str) -> Status:
    """Return the outcome of a command that could not be run, or of which nothing is known."""
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": f"Internal error occurred: {what}",
        "details": {"causes": [{"message": what}]},
        "code": 500,
    }


def encode_status(status: Status, *, as_json: bool) -> bytes | None:
    """Return an outcome as the error stream carries it; None: nothing is sent (old, success)."""
    if as_json:
        return orjson.dumps(status)
    if status["status"] == "Success":
        return None
    return str(status["message"]).encode()


class ResizeDecoder:
    """Reads terminal sizes from a stream of JSON objects that may be cut anywhere."""

    def __init__(self) -> None:
        self._text = ""
        self._json = json.JSONDecoder()

    def feed(self, data: bytes) -> list[Resize]:
        """Return the sizes that are complete now; raises Invalid for anything else."""
        try:
            self._text += data.decode("ascii")
        except UnicodeDecodeError as exc:
            raise Invalid("A terminal size is not JSON; expected Width and Height") from exc
        sizes: list[Resize] = []
        while True:
            start = _skip_blanks(self._text)
            if start == len(self._text):
                self._text = ""
                return sizes
            try:
                value, end = self._json.raw_decode(self._text, start)
            except json.JSONDecodeError as exc:
                if self._may_continue(exc, start):
                    return sizes
                raise Invalid(f"A terminal size is not JSON: {exc.msg}") from exc
            sizes.append(_size(value))
            self._text = self._text[end:]

    def _may_continue(self, error: json.JSONDecodeError, start: int) -> bool:
        """Tell a cut object from a wrong one: an object that lacks its end, and is not too long."""
        rest = self._text[start:]
        return rest.startswith("{") and "}" not in rest and len(rest) <= _MAX_RESIZE_BYTES


def _skip_blanks(text: str) -> int:
    match = _BLANK.match(text)
    return match.end() if match else 0


def _size(value: Any) -> Resize:
    if not isinstance(value, dict):
        raise Invalid("A terminal size must be a JSON object with Width and Height")
    fields = {str(name).lower(): number for name, number in value.items()}
    width, height = fields.get("width", 0), fields.get("height", 0)
    for number in (width, height):
        if type(number) is not int or not 0 <= number <= _MAX_SIZE:
            raise Invalid(f"A terminal size must be two numbers from 0 to {_MAX_SIZE}")
    return Resize(width, height)
