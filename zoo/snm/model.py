"""What is left of a sparse non-negative matrix language model once it is adjusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.ngram.backoff import NONE, find, followers, or_zero
from zoo.snm.skipgrams import Array, Chain, after, back, remote_words


@dataclass(frozen=True)
class SnmModel:
    """The matrix M of features and words, by chain and level.

        P(w | h) = sum of M(f, w) / sum of M(f, v) over v,   each over the features f of the history h

    keys[chain][level]: int64, ascending: the skip-grams, each a feature's index and a word; of the unigrams
        all words of the vocabulary.
    weights[chain][level]: float32, M of each. Those of the unigrams have in them what all words have alike.
    totals[chain][level]: float32, of each feature the sum of its weights.
    """

    vocabulary_size: int
    chains: list[Chain]
    boundary: int | None
    keys: list[list[Array]]
    weights: list[list[Array]]
    totals: list[list[Array]]

    @property
    def sizes(self) -> list[list[int]]:
        """How many skip-grams there are of each chain and level."""
        return [[len(keys) for keys in levels] for levels in self.keys]

    def log_probs(self, ids: Array) -> Array:
        """Natural logarithms of P(ids[t] | ids[:t]), for t = 1, 2, ...; [len(ids) - 1], float64."""
        weight, total = np.zeros(len(ids)), np.zeros(len(ids))
        for chain, level, begins, ends in self._features(np.asarray(ids, np.int64)):
            weight += or_zero(self.weights[chain][level], ends)
            total += or_zero(self.totals[chain][level], begins)
        with np.errstate(divide="ignore"):
            return np.log(weight[1:]) - np.log(total[1:])

    def distribution(self, history: Sequence[int]) -> Array:
        """P(w | history) of every word of the vocabulary; float64, [vocabulary size]."""
        weights = np.zeros(self.vocabulary_size)
        ids = np.array([*history, 0], np.int64)  # whichever word it is that follows
        for chain, level, begins, _ in self._features(ids):
            if begins[-1] != NONE:
                places, words = followers(self.keys[chain][level], begins[-1], self.vocabulary_size)
                weights[words] += self.weights[chain][level][places]
        return weights / weights.sum()

    def _features(self, ids: Array) -> Iterator[tuple[int, int, Array, Array]]:
        """Chain and level of each feature that a word may have, its index before each place, and that of the
        skip-gram which ends there; NONE where there is none."""
        is_boundary = None if self.boundary is None else ids == self.boundary
        ends = [ids]
        yield 0, 0, np.zeros(len(ids), np.int64), ids
        for level in range(1, self.chains[0].levels):
            begins = back(ids, 1, NONE) if level == 1 else after(ends[-1], is_boundary)
            ends.append(find(self.keys[0][level], begins, ids, self.vocabulary_size))
            yield 0, level, begins, ends[-1]
        for chain, kind in enumerate(self.chains[1:], 1):
            for index, is_none in remote_words(kind, ends[kind.remote - 1], is_boundary, back):
                begins = np.where(is_none, NONE, index)
                for level in range(kind.levels):
                    found = find(self.keys[chain][level], begins, ids, self.vocabulary_size)
                    yield chain, level, begins, found
                    begins = after(found, is_boundary)
