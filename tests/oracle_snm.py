"""Sparse non-negative matrix language models again, from their definition: dictionaries of tuples."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

Feature = tuple[int, int, tuple[int, ...]]  # chain, adjacent words, words

META_FEATURES = ("tnc", "f", "fc", "w", "tw", "twc", "fw")  # type, total n, count c, feature, word
MASK = (1 << 64) - 1


class SparseMatrix:
    """M(f, w) = C(f, w) / C(f) e^A(f, w), from the weights that meta-features hash to.

    Args:
        ids: the text, after what precedes it.
        chains: remote words, fewest and most words skipped, levels.
        boundary: the id that nothing reaches across; None where it does.
        weights: [2^bits + 1], the last is the logarithm of the uniform feature's.
        possible: the words that it predicts.
    """

    def __init__(self, ids, chains, size, boundary, weights, possible):
        self.chains, self.size, self.boundary, self.possible = chains, size, boundary, possible
        self.weights, self.bits = weights, (len(weights) - 1).bit_length() - 1
        self.uniform = math.exp(weights[-1]) / len(possible)
        self.events = [(self.features(ids[:place]), ids[place]) for place in range(1, len(ids))]
        self.counts: dict[Feature, Counter[int]] = defaultdict(Counter)
        for features, word in self.events:
            for feature in features:
                self.counts[feature][word] += 1
        self.columns = sum((most - fewest + 1) * levels for _, fewest, most, levels in chains)
        self._number_all()

    def features(self, history: Sequence[int]) -> set[Feature]:
        """Those of a history."""
        found = set()
        for chain, (remote, fewest, most, levels) in enumerate(self.chains):
            for level, skipped in itertools.product(range(levels), range(fewest, most + 1)):
                reach = remote + skipped + level
                words = tuple(history[len(history) - reach :])
                if len(words) == reach <= len(history) and self.boundary not in words[1:]:
                    found.add((chain, level, words[:remote] + words[remote + skipped :]))
        return found

    def _number_all(self) -> None:
        """Types in order, and features: 1-grams by id, skip-grams in the order of their words."""
        grams = defaultdict(set)
        for (chain, level, words), targets in self.counts.items():
            grams[chain, level] |= {(*words, word) for word in targets}
        grams[0, 0] = {(word,) for word in range(self.size)}
        self.grams = {key: {gram: place for place, gram in enumerate(sorted(grams[key]))} for key in grams}
        self.types, self.feature_numbers, first = {}, {}, 0
        for number, (chain, level) in enumerate(sorted(grams)):
            remote = self.chains[chain][0]
            if level:
                shorter = self.grams[chain, level - 1]
            else:
                shorter = self.grams[0, remote - 1] if remote else {(): 0}
            self.types[chain, level] = number
            self.feature_numbers[chain, level] = {words: first + place for words, place in shorter.items()}
            first += len(shorter)

    def adjustment(self, feature: Feature, word: int, count: int, total: int) -> float:
        chain, level, words = feature
        values = {
            "t": [(1.0, self.types[chain, level])],
            "f": [(1.0, self.feature_numbers[chain, level][words])],
            "w": [(1.0, word)],
            "c": between_powers(count),
            "n": between_powers(total),
        }
        result = -math.log(self.columns)
        for number, names in enumerate(META_FEATURES, 1):
            for chosen in itertools.product(*(values[name] for name in names)):
                share, place = 1.0, number * 0x9E3779B97F4A7C15 & MASK
                for part, value in chosen:
                    share *= part
                    place = (place ^ (value + 1)) * 0x9E3779B97F4A7C15 & MASK
                    place ^= place >> 29
                result += share * self.weights[place >> (64 - self.bits)]
        return result

    def entry(self, feature: Feature, word: int, left_out: int | None = None) -> float:
        """M(f, w), with one occurrence of the feature, before the word `left_out`, less."""
        targets = self.counts.get(feature, Counter())
        total = targets.total() - (left_out is not None)
        count = targets[word] - (left_out == word)
        if not count or not total:
            return 0.0
        return count / total * math.exp(self.adjustment(feature, word, count, total))

    def predictions(self, features: set[Feature], left_out: int | None = None) -> np.ndarray:
        """y(w) of all words."""
        y = [sum(self.entry(feature, word, left_out) for feature in features) for word in range(self.size)]
        return np.array(y) + [self.uniform * (word in self.possible) for word in range(self.size)]

    def loss(self, words: Sequence[int]) -> float:
        """Poisson's, of words of the text by number, each left out in its turn."""
        total = 0.0
        for features, word in (self.events[number] for number in words):
            y = self.predictions(features, word)
            total += y.sum() - math.log(y[word])
        return total

    def distribution(self, history: Sequence[int]) -> np.ndarray:
        y = self.predictions(self.features(history))
        return y / y.sum()


def between_powers(count: int) -> list[tuple[float, int]]:
    power = math.floor(math.log2(count))
    share = math.log2(count) - power
    return [(1 - share, power), (share, power + 1)]
