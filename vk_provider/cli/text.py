"""Figures and tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click

_STEPS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(number: int) -> str:
    """Return a number of bytes with three digits, such as 12.3 MiB."""
    value = float(number)
    for unit in _STEPS:
        if value < 1024 or unit == _STEPS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def duration(seconds: float) -> str:
    """Return a time as kubectl shows ages: 45s, 12m, 5h3m, 9d."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m" if hours < 48 else f"{hours // 24}d"


def moment(ns: int) -> str:
    """Return a time as RFC 3339 in UTC, "-" for none."""
    if not ns:
        return "-"
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns, as wide as they need be."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("   ".join(cells).rstrip())
