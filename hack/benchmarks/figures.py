"""Quantiles, and how a benchmark's figures are shown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import click


def quantile(values: Sequence[float], q: float) -> float:
    """Return the nearest-rank quantile: the smallest value that q of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def show(figures: Mapping[str, float | int | str | None], *, as_json: bool) -> None:
    """Print the figures on standard output, as a JSON object or as a table."""
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
    if as_json:
        click.echo(json.dumps(rounded))
        return
    width = max(len(k) for k in rounded)
    for name, value in rounded.items():
        click.echo(f"{name:<{width}}  {value}")
