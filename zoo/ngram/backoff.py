"""Back-off models: what is left of an n-gram model once it is estimated, as ARPA files hold it.

    log P(w | h) = log_prob(h w)                    where the n-gram h w is there,
                   backoff(h) + log P(w | h')       else; h' is h without its first word,

and backoff(h) = 0 of a history that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

MAX_ORDER = 12
NONE = -1  # the index of an n-gram, or the word of a history, that is not there


@dataclass(frozen=True)
class BackoffModel:
    """The n-grams of the orders 1 to `order`, and what is known of each.

    keys[k]: int64 keys of the n-grams of k + 1 words, ascending (see zoo.ngram.counting).
    log_prob[k]: float32, natural logarithms; minus infinity for a word that is impossible.
    backoff[k]: float32, natural logarithms; of all orders but the last.
    """

    vocabulary_size: int
    keys: list[Array]
    log_prob: list[Array]
    backoff: list[Array]

    @property
    def order(self) -> int:
        return len(self.keys)

    @property
    def sizes(self) -> list[int]:
        """How many n-grams there are of each order."""
        return [len(keys) for keys in self.keys]

    def words(self, level: int, part: slice = slice(None)) -> Array:
        """The n-grams of level + 1 words, or part of them, as words [n-grams, level + 1]."""
        columns, index = [], np.arange(len(self.keys[level]))[part]
        for keys in reversed(self.keys[: level + 1]):
            index, word = np.divmod(keys[index], self.vocabulary_size)
            columns.append(word)
        return np.stack(columns[::-1], axis=1)

    def log_probs(self, ids: Array) -> Array:
        """Natural logarithms of P(ids[t] | ids[:t]), for t = 1, 2, ...; [len(ids) - 1], float64."""
        ids = np.asarray(ids, np.int64)
        index = ids  # of the n-gram that begins at each place
        total = self.log_prob[0][ids[1:]].astype(np.float64)
        for level in range(1, min(self.order, len(ids))):
            history = index[:-1]
            total[level - 1 :] += or_zero(self.backoff[level - 1], history)
            index = find(self.keys[level], history, ids[level:], self.vocabulary_size)
            found = or_zero(self.log_prob[level], index)
            total[level - 1 :] = np.where(index == NONE, total[level - 1 :], found)
        return total

    def distribution(self, history: Sequence[int]) -> Array:
        """P(w | history) of every word of the vocabulary; float64, [vocabulary size]."""
        log_prob = self.log_prob[0].astype(np.float64)
        for length in range(1, min(self.order - 1, len(history)) + 1):
            index = np.zeros(1, np.int64)
            for level, word in enumerate(history[len(history) - length :]):
                index = find(self.keys[level], index, np.array([word]), self.vocabulary_size)
            if index[0] == NONE:
                continue
            log_prob += self.backoff[length - 1][index[0]]
            places, words = followers(self.keys[length], index[0], self.vocabulary_size)
            log_prob[words] = self.log_prob[length][places]
        return np.exp(log_prob)


def find(keys: Array, histories: Array, words: Array, vocabulary_size: int) -> Array:
    """Indices among `keys` of the n-grams that go on from histories, by index, with words; NONE where not."""
    wanted = np.where(histories == NONE, NONE, histories * vocabulary_size + words)
    if not len(keys):
        return np.full(len(wanted), NONE)
    order = np.argsort(wanted)  # a search in order takes a tenth of the time
    place = np.empty(len(wanted), np.int64)
    place[order] = np.searchsorted(keys, wanted[order])
    place = np.minimum(place, len(keys) - 1)
    return np.where(keys[place] == wanted, place, NONE)


def or_zero(values: Array, index: Array) -> Array:
    """The values at the indices; 0 where there is none."""
    return np.where(index == NONE, 0.0, values[index])


def followers(keys: Array, history: int, vocabulary_size: int) -> tuple[slice, Array]:
    """Which of the keys go on from a history, and with what words."""
    start, end = np.searchsorted(keys, (history + np.arange(2)) * vocabulary_size)
    return slice(start, end), keys[start:end] % vocabulary_size
