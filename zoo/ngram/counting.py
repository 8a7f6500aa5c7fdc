"""N-grams and how often each occurs: sorted arrays of integers, level by level.

An n-gram is its history and one more word: a key

    key = index of the history among the n-grams of the order below * vocabulary size + word,

so that a sorted array of int64 holds all n-grams of an order, those of a history side by side, however long
they are. The unigrams are their words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

PIECE = 1 << 22  # tokens that are sorted at a time

Array = np.ndarray


@dataclass(frozen=True)
class Counts:
    """How often each n-gram occurs, of the orders 1 to `order`.

    keys[k], counts[k]: int64 arrays of the n-grams of k + 1 words; keys[0] are all words of the vocabulary.
    `boundary` is the word that no n-gram reaches across; None where they do.
    """

    vocabulary_size: int
    boundary: int | None
    keys: list[Array]
    counts: list[Array]

    @property
    def order(self) -> int:
        return len(self.keys)

    def __len__(self) -> int:
        return sum(map(len, self.keys))


def count(
    texts: Iterable[Array], order: int, vocabulary_size: int, boundary: int | None = None, piece: int = PIECE
) -> Counts:
    """Count the n-grams of a text that comes in parts.

    Args:
        texts: ids, one array after the other. The very first id is history alone: what precedes the text.
        order: the longest n-grams' length.
        vocabulary_size: one more than the largest id.
        boundary: the id between sentences. The n-grams that hold it in their middle are not counted: as the
            first word it begins a sentence, as the last one it ends one.
        piece: how many tokens are sorted at a time. Memory is taken by these and the distinct n-grams, not
            by the text.

    Raises:
        ValueError: there is not one token, or an id is not of the vocabulary.
    """
    runs: list[Counts] = []
    is_first = True
    for ids, starts in _pieces(texts, order, piece):
        run = _count_piece(ids, starts, order, vocabulary_size, boundary, is_first)
        is_first = False
        # Runs of like size are merged, so that each n-gram takes part in few merges.
        while runs and len(runs[-1]) <= 2 * len(run):
            run = _merged(runs.pop(), run)
        runs.append(run)
    while len(runs) > 1:
        last = runs.pop()
        runs.append(_merged(runs.pop(), last))
    if not runs or not runs[0].counts[0].any():
        raise ValueError("there is no text to count n-grams in")
    return runs[0]


def _pieces(texts: Iterable[Array], order: int, piece: int) -> Iterator[tuple[Array, int]]:
    """The ids, and how many n-grams begin among them; the last order - 1 of them begin in the next piece."""
    beyond = order - 1
    held, size = [np.zeros(0, np.int32)], 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= piece + beyond:
            ids = np.concatenate(held)
            starts = size - beyond
            yield ids, starts
            held, size = [ids[starts:]], beyond
    if size:
        yield np.concatenate(held), size


def _count_piece(ids, starts, order, vocabulary_size, boundary, is_first):
    if len(ids) and not 0 <= ids.min() <= ids.max() < vocabulary_size:
        raise ValueError(f"ids from {ids.min()} to {ids.max()} in a vocabulary of {vocabulary_size}")
    place = np.arange(starts)
    index = ids[:starts].astype(np.int64)
    levels = [np.arange(vocabulary_size)]
    counts = [np.bincount(index[1:] if is_first else index, minlength=vocabulary_size)]
    for last in range(1, order):
        goes_on = place + last < len(ids)
        if boundary is not None and last > 1:
            goes_on[goes_on] = ids[place[goes_on] + last - 1] != boundary
        place, index = place[goes_on], index[goes_on]
        keys = index * vocabulary_size + ids[place + last]
        keys, index, number = _tally(keys, np.ones(len(keys), np.int64))
        levels.append(keys)
        counts.append(number)
    return Counts(vocabulary_size, boundary, levels, counts)


def _tally(keys: Array, counts: Array, nearly_sorted: bool = False) -> tuple[Array, Array, Array]:
    """The distinct keys, sorted; of each key its place among them; and the counts of equal keys in sum."""
    order = np.argsort(keys, kind="stable" if nearly_sorted else None)
    ordered = keys[order]
    is_new = np.ones(len(keys), bool)
    is_new[1:] = ordered[1:] != ordered[:-1]
    index = np.empty(len(keys), np.int64)
    index[order] = np.cumsum(is_new) - 1
    starts = np.flatnonzero(is_new)
    total = np.add.reduceat(counts[order], starts) if len(starts) else counts
    return ordered[starts], index, total


def _merged(first: Counts, second: Counts) -> Counts:
    size = first.vocabulary_size
    keys, counts = [first.keys[0]], [first.counts[0] + second.counts[0]]
    moved = [first.keys[0], second.keys[0]]  # from an index of either to one of both
    for level in range(1, first.order):
        parts = [
            now[part.keys[level] // size] * size + part.keys[level] % size
            for now, part in zip(moved, (first, second), strict=True)
        ]
        # A stable sort merges parts that are sorted.
        number = np.concatenate([first.counts[level], second.counts[level]])
        distinct, index, total = _tally(np.concatenate(parts), number, nearly_sorted=True)
        moved = np.split(index, [len(parts[0])])
        keys.append(distinct)
        counts.append(total)
    return Counts(size, first.boundary, keys, counts)
