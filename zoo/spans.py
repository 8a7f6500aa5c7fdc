"""Spans written as tags: BIO and BIOES, in which an entity is marked token by token.

Ada      B-person    begins an entity
Lovelace I-person    is inside of one (E-person in BIOES, where it also ends it)
wrote    O           is outside of all; S-person would be an entity of one token, in BIOES
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

OUTSIDE = "O"
_PREFIXES = "BIES"


def split(tag: str) -> tuple[str, str]:
    """(prefix, kind) of a tag: "B-person" -> ("B", "person"), "O" -> ("O", "")."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def mark_spans(tags: Iterable[str]) -> bool:
    """Whether tags are those of spans, and not, say, parts of speech."""
    parts = [split(tag) for tag in tags if tag != OUTSIDE]
    return bool(parts) and all(prefix in _PREFIXES and kind for prefix, kind in parts)


def have_ends(tags: Iterable[str]) -> bool:
    """Whether tags of spans are BIOES, not BIO."""
    return any(split(tag)[0] in ("E", "S") for tag in tags)


def may_follow(before: str, tag: str, ends: bool) -> bool:
    """Whether a tag may come after another; O stands for the time before and after a sentence, too.

    With `ends`, which are those of BIOES, an entity that is begun has to be ended.
    """
    (prefix_before, kind_before), (prefix, kind) = split(before), split(tag)
    goes_on = prefix in ("I", "E")
    if goes_on or (ends and prefix_before in ("B", "I")):
        return goes_on and prefix_before in ("B", "I") and kind == kind_before
    return True


def legal_moves(tags: Iterable[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which tags may begin a sentence [tags], follow each other [from, to], and end a sentence [tags]."""
    tags = list(tags)
    if not mark_spans(tags):
        every = np.ones(len(tags), bool)
        return every, np.ones((len(tags), len(tags)), bool), every
    ends = have_ends(tags)
    first = np.array([may_follow(OUTSIDE, tag, ends) for tag in tags])
    moves = np.array([[may_follow(before, tag, ends) for tag in tags] for before in tags])
    last = np.array([may_follow(tag, OUTSIDE, ends) for tag in tags])
    return first, moves, last
