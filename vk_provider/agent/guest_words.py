"""What a guest says in words, before a person or a program sees it."""

from __future__ import annotations

MAX_WORDS = 1000


def guest_words(text: str, most: int = MAX_WORDS) -> str:
    """Return a guest's words cut short and without control characters: nobody trusts them.

    They get into events, statuses and terminals, where such characters do things.
    """
    return "".join(c if c.isprintable() else " " for c in text[:most])
