"""Kubernetes' resource quantities, exactly (apimachinery `resource.Quantity`).

A quantity is a decimal number with a binary suffix (Ki … Ei), a decimal one
(n, u, m, k … E) or an exponent (e3, E-2).
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from vk_provider.common.errors import Invalid

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([a-zA-Z]*))")
_BINARY = {
    name: Fraction(1024 ** (i + 1)) for i, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))
}
_DECIMAL = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
}
_SUFFIXES = _BINARY | _DECIMAL

_LARGEST_EXPONENT = 64


def parse_quantity(text: str | int | float) -> Fraction:
    """Return the quantity's value; raises Invalid when it is none."""
    match = _FORM.fullmatch(str(text).strip())
    if match is None:
        raise Invalid(f"{text!r} is not a resource quantity such as 500m, 1.5 or 256Mi")
    number, exponent, suffix = match.groups()
    if exponent is not None:
        # 10 to a power that nobody can mean would take all the memory there is.
        if abs(int(exponent[1:])) > _LARGEST_EXPONENT:
            raise Invalid(f"{text!r} is out of the range of resource quantities")
        return Fraction(number) * Fraction(10) ** int(exponent[1:])
    if suffix not in _SUFFIXES:
        known = " ".join(filter(None, _SUFFIXES))
        raise Invalid(f"{text!r} has the unknown suffix {suffix!r}; known are {known}")
    return Fraction(number) * _SUFFIXES[suffix]


def cpu_milli(text: str | int | float) -> int:
    """Return a CPU quantity in thousandths of a CPU, rounded up (Quantity.MilliValue)."""
    return math.ceil(parse_quantity(text) * 1000)


def whole(text: str | int | float) -> int:
    """Return a quantity of bytes or of things, rounded up (Quantity.Value)."""
    return math.ceil(parse_quantity(text))
