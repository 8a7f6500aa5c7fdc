"""Words with something written under each of them, for a terminal."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Sequence


def under(tokens: Sequence[str], tags: Sequence[str], columns: int) -> str:
    """Tokens in lines of at most so many columns, and under each its tag.

    Where all tokens are single characters, those that follow each other with the same tag are taken together.
    """
    pairs = list(zip(tokens, tags, strict=True))
    if all(len(token) == 1 for token in tokens):
        runs = itertools.groupby(pairs, key=lambda pair: pair[1])
        pairs = [("".join(token for token, _ in run), tag) for tag, run in runs]
    return "\n\n".join("\n".join(line) for line in _lines(pairs, columns))


def _lines(pairs: Sequence[tuple[str, str]], columns: int) -> Iterator[tuple[str, str]]:
    upper = lower = ""
    for token, tag in pairs:
        token = visible(token)
        needed = max(width(token), width(tag))
        if upper and width(upper) + needed > columns:
            yield upper.rstrip(), lower.rstrip()
            upper = lower = ""
        upper += token + " " * (needed - width(token) + 1)
        lower += tag + " " * (needed - width(tag) + 1)
    yield upper.rstrip(), lower.rstrip()


def visible(text: str) -> str:
    """Control characters as escapes, which move no cursor and ring no bell."""
    return "".join(
        repr(character)[1:-1] if unicodedata.category(character) in ("Cc", "Cf") else character
        for character in text
    )


def width(text: str) -> int:
    """Columns on a terminal: none for a combining character, two for a wide one."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )
