"""Quantities of pods as numbers that fit the seam's 64-bit fields.

The API stores amounts up to 2^63-1 of anything: as many CPUs are more than 64 bits of
thousandths, and three such limits are more in sum. What is beyond every host is cut to a bound
that is, too; the rule of sizes and the kernel then say so.
"""

from __future__ import annotations

from fractions import Fraction

from vk_provider.common.quantity import cpu_milli, whole

MAX_CPU_MILLI = 10**12
MAX_AMOUNT = 2**63 - 1


def bounded_milli(text: str | int | float) -> int:
    """Return a CPU quantity in thousandths, `MAX_CPU_MILLI` at most."""
    return min(cpu_milli(text), MAX_CPU_MILLI)


def bounded_whole(text: str | int | float) -> int:
    """Return a quantity of bytes, `MAX_AMOUNT` at most."""
    return min(whole(text), MAX_AMOUNT)


def bounded(value: Fraction) -> int:
    """Return a sum of quantities as a number, `MAX_AMOUNT` at most."""
    return min(int(value), MAX_AMOUNT)
