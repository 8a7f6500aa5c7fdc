"""Skip-grams: what they are made of, and how often each occurs, as sorted arrays of integers.

A skip-gram (r, s, a) of a word, its target, is r remote words, s skipped and a adjacent ones before it
(Shazeer et al. 2015, arXiv:1412.1454): (1, 2, 3) of the last word of "the quick brown fox jumps over the lazy
dog" is "brown", two words skipped, "over the lazy". An n-gram has no remote words. A tied skip-gram does not
tell apart how many words, of a range, are skipped.

As n-grams are (zoo.ngram.counting), a skip-gram is its beginning's place among the shorter ones and one more
word, an int64 key: a chain is the skip-grams of some remote words and skips, with ever more adjacent words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.ngram.backoff import NONE

Array = np.ndarray

MAX_SKIPS = 32


@dataclass(frozen=True)
class Chain:
    """Skip-grams of `remote` words and `nearest` to `farthest` skipped ones, tied where these differ.

    There are `levels` of them: at level l, from 0 on, l adjacent words and the target. The n-grams are the
    chain of no remote words.
    """

    remote: int
    nearest: int
    farthest: int
    levels: int


@dataclass(frozen=True)
class Limits:
    """Which skip-grams there are.

    Attributes:
        order: the longest n-grams' length.
        skip_words: the most words of a skip-gram before its target, r + a; 0: there are no skip-grams.
        skips: the most words skipped, s, each number of them told apart.
        tied_skips: beyond these, one remote word is tied from there to so many skipped; r + a is less by one.
    """

    order: int
    skip_words: int = 0
    skips: int = 1
    tied_skips: int = 0

    def chains(self) -> list[Chain]:
        """The chain of the n-grams, and those of the skip-grams.

        Raises ValueError where the remote words of a skip-gram are more than the longest n-grams.
        """
        if self.skip_words > self.order:
            raise ValueError(f"skip-grams go on from {self.skip_words} words, n-grams have only {self.order}")
        chains = [Chain(0, 0, 0, self.order)]
        for skips in range(1, self.skips + 1):
            for remote in range(1, self.skip_words + 1):
                chains.append(Chain(remote, skips, skips, self.skip_words - remote + 1))
        if self.skip_words and self.tied_skips > self.skips:
            chains.append(Chain(1, self.skips + 1, self.tied_skips, max(self.skip_words - 1, 1)))
        return chains


def history_size(chains: Sequence[Chain]) -> int:
    """How many words before its target a skip-gram reaches back to at most."""
    return max(chain.remote + chain.farthest + chain.levels - 1 for chain in chains)


def remote_words(
    chain: Chain, ends: Any, is_boundary: Any, back: Callable[[Any, int, Any], Any]
) -> Iterator[tuple[Any, Any]]:
    """What remote words there are before each place, for each number of words skipped.

    Of arrays of NumPy and tensors alike, [..., time]. Gives their index, and where it does not hold: there
    are none, they or the skipped words reach across a boundary, or they are there with fewer skipped already.

    Args:
        ends: of each place the index of the n-gram, of as many words as are remote, that ends there.
        is_boundary: whether a boundary is there; None where skip-grams reach across them.
        back: (values, n, otherwise): the values n places back; `otherwise` where there are none.
    """
    crosses = None
    nearer: list[Any] = []
    for number in range(1, chain.farthest + 1):
        if is_boundary is not None:
            skipped = back(is_boundary, number, False)
            crosses = skipped if crosses is None else crosses | skipped
        if number < chain.nearest:
            continue
        index = back(ends, number + 1, NONE)
        is_none = index == NONE
        for other in nearer:
            is_none = is_none | (index == other)
        if crosses is not None:
            is_none = is_none | crosses
            if chain.remote > 1:  # a single one may begin the sentence
                is_none = is_none | back(is_boundary, number + 1, False)
        nearer.append(index)
        yield index, is_none


@dataclass(frozen=True)
class SkipGrams:
    """The skip-grams of a text, by chain and level.

    keys[chain][level]: int64, ascending; of the unigrams all words of the vocabulary.
    counts[chain][level]: how often each occurs, int32.
    columns: the features that a word may have, one for each number of words skipped: the chain, the level,
        and of each word of the text the index of the skip-gram, int32 [words]; NONE where it has none.
    """

    vocabulary_size: int
    chains: list[Chain]
    keys: list[list[Array]]
    counts: list[list[Array]]
    columns: list[tuple[int, int, Array]]

    def levels(self) -> Iterator[tuple[int, int, Array]]:
        """Chain, level and keys."""
        for chain, levels in enumerate(self.keys):
            for level, keys in enumerate(levels):
                yield chain, level, keys

    def features(self, chain: int, level: int) -> int:
        """How many skip-grams may go on to those of a level."""
        return features([[len(keys) for keys in levels] for levels in self.keys], self.chains, chain, level)


def features(sizes: Sequence[Sequence[int]], chains: Sequence[Chain], chain: int, level: int) -> int:
    """How many skip-grams may go on to those of a level, of the numbers of them all."""
    if level:
        return sizes[chain][level - 1]
    remote = chains[chain].remote
    return sizes[0][remote - 1] if remote else 1


def count(ids: Array, limits: Limits, vocabulary_size: int, boundary: int | None = None) -> SkipGrams:
    """Count the skip-grams of a text, which is held in memory, as their occurrences are.

    Args:
        ids: the text. The very first id is history alone: what precedes the text.
        boundary: the id between sentences, which none reaches across; None where they do.

    Raises:
        ValueError: there is not one word, or the limits do not go together.
    """
    chains = limits.chains()
    if len(ids) < 2:
        raise ValueError("there is no text to count n-grams in")
    ids = np.asarray(ids, np.int64)
    is_boundary = None if boundary is None else ids == boundary
    counted = SkipGrams(vocabulary_size, [], [], [], [])
    ends = _count_ngrams(counted, chains[0], ids, is_boundary)
    for chain in chains[1:]:
        if chain.remote <= len(ends):
            remote = remote_words(chain, ends[chain.remote - 1], is_boundary, back)
            begins = [np.where(is_none, NONE, index) for index, is_none in remote]
            _count_chain(counted, chain, begins, ids, is_boundary)
    return counted


def back(values: Array, places: int, otherwise: Any) -> Array:
    """The values so many places before each, `otherwise` where there are none; in one dimension."""
    return np.concatenate([np.full(min(places, len(values)), otherwise), values[:-places]])


def _count_ngrams(counted: SkipGrams, chain: Chain, ids: Array, is_boundary: Array | None) -> list[Array]:
    """Gives, by level, the index of the n-gram that ends at each place."""
    size = counted.vocabulary_size
    counted.chains.append(chain)
    counted.keys.append([np.arange(size)])
    counted.counts.append([np.bincount(ids[1:], minlength=size).astype(np.int32)])
    counted.columns.append((0, 0, ids[1:].astype(np.int32)))
    ends = [ids]
    for level in range(1, chain.levels):
        # A boundary may be the first word, which begins the sentence.
        begins = back(ids, 1, NONE) if level == 1 else after(ends[-1], is_boundary)
        if not (found := _count_level(counted, level, [begins], ids)):
            break
        ends += found
    counted.chains[0] = dataclasses.replace(chain, levels=len(counted.keys[0]))
    return ends


def _count_chain(
    counted: SkipGrams, chain: Chain, begins: Sequence[Array], ids: Array, is_boundary: Array | None
) -> None:
    counted.chains.append(chain)
    counted.keys.append([])
    counted.counts.append([])
    for level in range(chain.levels):
        if not begins:
            break
        begins = [after(index, is_boundary) for index in begins] if level else begins
        begins = _count_level(counted, level, begins, ids)
    if counted.keys[-1]:
        counted.chains[-1] = dataclasses.replace(chain, levels=len(counted.keys[-1]))
    else:
        for of_chains in (counted.chains, counted.keys, counted.counts):
            of_chains.pop()


def after(index: Array, is_boundary: Array | None) -> Array:
    """What skip-grams that end at each place are before the next."""
    return back(index if is_boundary is None else np.where(is_boundary, NONE, index), 1, NONE)


def _count_level(counted: SkipGrams, level: int, begins: Sequence[Array], ids: Array) -> list[Array]:
    """Count a level of the last chain, of the indices that its skip-grams begin with before each place; gives
    those of the skip-grams that end there. Nothing where there are none at all."""
    places = [np.flatnonzero(index != NONE) for index in begins]
    parts = [
        index[place] * counted.vocabulary_size + ids[place]
        for index, place in zip(begins, places, strict=True)
    ]
    keys, inverse, number = np.unique(np.concatenate(parts), return_inverse=True, return_counts=True)
    if not len(keys):
        return []
    counted.keys[-1].append(keys)
    counted.counts[-1].append(number.astype(np.int32))
    ends = []
    for place, part in zip(
        places, np.split(inverse, np.cumsum([len(part) for part in parts[:-1]])), strict=True
    ):
        index = np.full(len(ids), NONE)
        index[place] = part
        ends.append(index)
        counted.columns.append((len(counted.chains) - 1, level, index[1:].astype(np.int32)))
    return ends
