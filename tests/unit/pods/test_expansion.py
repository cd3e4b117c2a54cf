"""`$(NAME)` references."""

from __future__ import annotations

from typing import Any

import pytest

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
