from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vk_provider.common.errors import Invalid
from vk_provider.common.quantity import cpu_milli, parse_quantity, whole


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("12", 12),
        ("+1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("-1", -1),
        ("100m", Fraction(1, 10)),
        ("1n", Fraction(1, 10**9)),
        ("3u", Fraction(3, 10**6)),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Gi", 3 * 2**29),
        ("2Ei", 2**61),
        ("3E", 3 * 10**18),
        ("1e3", 1000),
        ("1E-2", Fraction(1, 100)),
        (2, 2),
    ],
)
def test_forms_of_a_quantity(text: str | int, value: Fraction | int) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text", ["", "x", "1 Gi", "1ki", "1KI", "Gi", "1e", "1.2.3", "0x10", "1e999999999"]
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(Invalid):
        parse_quantity(text)


@given(st.integers(0, 10**15))
def test_amounts_are_exact(number: int) -> None:
    assert cpu_milli(f"{number}m") == number
    assert whole(f"{number}Ki") == number * 1024


def test_parts_are_rounded_up() -> None:
    assert cpu_milli("1n") == 1
    assert whole("1m") == 1
    assert whole("0.1Ki") == 103
