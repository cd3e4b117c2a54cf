"""`$(NAME)` references in commands, arguments, environment values and sub-paths.

The syntax is Kubernetes' own (third_party/forked/golang/expansion): `$$` is a literal `$`, and a
reference that is not closed or not known stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

_OPERATOR = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, lookup: Callable[[str], str]) -> str:
    """Replace each reference by what `lookup` returns for its name."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else lookup(name)

    return _OPERATOR.sub(replace, text)


def expand_from(text: str, *contexts: Mapping[str, str]) -> str:
    """Replace references by the first context that knows them; unknown ones stay."""

    def lookup(name: str) -> str:
        for context in contexts:
            if name in context:
                return context[name]
        return f"$({name})"

    return expand(text, lookup)


def expand_all(texts: Sequence[str], *contexts: Mapping[str, str]) -> list[str]:
    """Expand a command or its arguments."""
    return [expand_from(text, *contexts) for text in texts]
