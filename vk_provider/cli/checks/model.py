"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How serious it is: FAILED keeps pods from running, DOUBTFUL makes it worse than need be."""

    OK = "ok"
    DOUBTFUL = "doubtful"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, what was found, and how to mend it ("" when it is well)."""

    what: str
    verdict: Verdict
    found: str
    mend: str = ""


def ok(what: str, found: str) -> Finding:
    """It is well."""
    return Finding(what, Verdict.OK, found)


def doubtful(what: str, found: str, mend: str) -> Finding:
    """It works, but not well."""
    return Finding(what, Verdict.DOUBTFUL, found, mend)


def failed(what: str, found: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(what, Verdict.FAILED, found, mend)
