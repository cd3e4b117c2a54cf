"""`$(NAME)` references."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vk_provider.pods.expansion import expand_all, expand_from

VALUES = {"A": "a", "B": "b", "EMPTY": "", "REF": "$(A)"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("none", "none"),
        ("$(A)", "a"),
        ("x-$(A)-$(B)-y", "x-a-b-y"),
        ("$(A)$(A)", "aa"),
        ("[$(EMPTY)]", "[]"),
        ("$(REF)", "$(A)"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$a"),
        ("$$$$(A)", "$$(A)"),
        ("$$$$$$(A)", "$$$(A)"),
        ("$A", "$A"),
        ("$", "$"),
        ("a$", "a$"),
        ("$(A", "$(A"),
        ("$(A$$", "$(A$"),
        ("$$(A", "$(A"),
        ("$(", "$("),
        ("$()", "$()"),
        ("$)", "$)"),
        ("$($(A)", "$($(A)"),
        ("(A) {A} ${A}", "(A) {A} ${A}"),
        ("$(A)\n$(B)", "a\nb"),
        ("é$(A)é", "éaé"),
    ],
)
def test_references_are_replaced(text: Any, expected: Any) -> None:
    assert expand_from(text, VALUES) == expected


def test_the_first_context_that_knows_a_name_wins() -> None:
    assert expand_all(["$(A)", "$(C)"], {"A": "1"}, {"A": "2", "C": "3"}) == ["1", "3"]


def read_by_the_rules(text: str) -> str:
    """The syntax, character by character, as its description has it."""
    out, at = "", 0
    while at < len(text):
        rest = text[at + 1 :]
        if text[at] != "$" or not rest:
            out, at = out + text[at], at + 1
        elif rest[0] == "$":
            out, at = out + "$", at + 2
        elif rest[0] == "(" and ")" in rest:
            name = rest[1 : rest.index(")")]
            out += VALUES.get(name, f"$({name})")
            at += len(name) + 3
        elif rest[0] == "(":
            out, at = out + "$(", at + 2
        else:
            out, at = out + "$" + rest[0], at + 2
    return out


@given(st.text(alphabet="$()AB\n"))
def test_any_text_is_expanded_by_the_rules(text: str) -> None:
    assert expand_from(text, VALUES) == read_by_the_rules(text)
