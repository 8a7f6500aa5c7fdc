"""The weights of a sparse non-negative matrix language model, and how their adjustment is learned.

    P(w | h) = sum of M(f, w) / sum of M(f, v) over v,   each over the features f of the history h
    M(f, w) = C(f, w) / C(f) e^A(f, w)

f is a skip-gram without its target, of a type: so many remote, skipped and adjacent words. C counts. A, the
adjustment, is the sum of the weights of meta-features: combinations of the feature, its type, its count C(f),
the target w and the count C(f, w), hashed to a table. A count between two powers of 2 takes part in the
meta-features of both, in shares.

Each word of the text is left out in its turn: where it is predicted, C(f, w) and C(f) are less by one, in A,
too, so that a skip-gram which is there once predicts nothing. The loss is Poisson's: y(w) = sum of M(f, w),

    L = sum of (sum of y(v) over v - log y(w)) over all words w of the text

It is linear in what a feature predicts of the words that do not follow, which can thus be counted in where
they do: a step reads no skip-grams but those of its own words. The multinomial loss, -log P, is what counts
in the end, but needs all that ever follow each feature of a word.

Source: Shazeer, Pelemans and Chelba 2015, "Skip-gram Language Modeling Using Sparse Non-negative Matrix
Probability Estimation", arXiv:1412.1454. Differs from the paper: of the combinations of meta-features only
those below; one more feature, always there, predicts all words alike and is never left out, so that words are
possible which are there once or never.
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from zoo.ngram.backoff import NONE
from zoo.snm.model import SnmModel
from zoo.snm.skipgrams import Array, SkipGrams

META_FEATURES = (
    ("type", "total", "count"),
    ("feature",),
    ("feature", "count"),
    ("target",),
    ("type", "target"),
    ("type", "target", "count"),
    ("feature", "target"),
)
EVENTS = 1 << 22  # words of the text that the adjustment is learned from at most
BATCH = 1 << 14  # words of a step at most
STEPS = 100  # of an epoch at least, where there are as many words
UNIFORM = 0.01  # what the uniform feature begins with
MULTIPLIER = 0x9E3779B97F4A7C15  # of Fibonacci hashing
PIECE = 1 << 20  # entries at a time
MOST = (1 << 31) - 1  # entries that int32 numbers

# A place in the weights of each entry, and a share; None for 1.
MetaFeature = tuple[Array, Array | None]


class Matrix:
    """The entries of the matrix, those of one feature side by side: arrays [entries].

    Attributes:
        types, features, targets: numbers; of the features, those of all types.
        counts, totals: C(f, w) and C(f).
        events: of each word of the text the entries that predict it, int32 [words, columns]; NONE for none.
    """

    def __init__(self, skip_grams: SkipGrams, seed: int = 1):
        self.skip_grams = skip_grams
        size = skip_grams.vocabulary_size
        self.counts = np.concatenate([counts for levels in skip_grams.counts for counts in levels])
        entries = len(self.counts)
        if entries > MOST:
            raise ValueError(f"{entries:,} n-grams and skip-grams; there may be {MOST:,}")
        self.types = np.empty(entries, np.int16)
        self.features, self.targets, self.totals = (np.empty(entries, np.int32) for _ in range(3))
        self.starts: dict[tuple[int, int], int] = {}  # of each chain and level the first entry
        first, first_feature = 0, 0
        for number, (chain, level, keys) in enumerate(skip_grams.levels()):
            part = slice(first, first + len(keys))
            feature, target = np.divmod(keys, size)
            total = np.bincount(feature, skip_grams.counts[chain][level])
            self.types[part], self.targets[part] = number, target
            self.features[part], self.totals[part] = feature + first_feature, total[feature]
            self.starts[chain, level] = first
            first, first_feature = part.stop, first_feature + skip_grams.features(chain, level)
        self.events = self._events(np.random.default_rng(seed))

    def _events(self, draw: np.random.Generator) -> Array:
        columns = self.skip_grams.columns
        words = len(columns[0][2])
        chosen = np.sort(draw.choice(words, EVENTS, replace=False)) if words > EVENTS else slice(None)
        events = np.empty((min(words, EVENTS), len(columns)), np.int32)
        for place, (chain, level, index) in enumerate(columns):
            events[:, place] = np.where(index == NONE, NONE, index + self.starts[chain, level])[chosen]
        return events


class Adjustment:
    """A(f, w) of the entries of a matrix.

    Attributes:
        weights: of the hashed meta-features, and last the logarithm of the uniform feature's; [2^bits + 1].
    """

    def __init__(self, matrix: Matrix, open_vocabulary: bool = True, bits: int | None = None):
        self.matrix = matrix
        self.bits = min(max(len(matrix.counts).bit_length(), 16), 22) if bits is None else bits
        self.weights = np.zeros((1 << self.bits) + 1)
        self.weights[-1] = math.log(UNIFORM)
        occurs = matrix.counts[: matrix.skip_grams.vocabulary_size] > 0
        self.uniform = (occurs | open_vocabulary) / (occurs | open_vocabulary).sum()
        self._share = self.uniform.max()  # of each word that may be
        self._offset = -math.log(matrix.events.shape[1])  # all features together predict about one word
        largest = int(max(matrix.counts.max(), matrix.totals.max()))
        self._logarithms = np.log2(np.maximum(np.arange(largest + 1), 1)).astype(np.float32)

    def meta_features(self, entries: Array | slice, counts: Array, totals: Array) -> Iterator[MetaFeature]:
        """Of entries, as if these were their counts."""
        matrix = self.matrix
        parts: dict[str, list[tuple[Array | None, Array]]] = {
            "type": [(None, matrix.types[entries])],
            "feature": [(None, matrix.features[entries])],
            "target": [(None, matrix.targets[entries])],
            "count": self._between_powers(counts),
            "total": self._between_powers(totals),
        }
        for number, names in enumerate(META_FEATURES, 1):
            for chosen in itertools.product(*(parts[name] for name in names)):
                shares = [share for share, _ in chosen if share is not None]
                yield (
                    _hashed(number, [value for _, value in chosen], self.bits),
                    functools.reduce(np.multiply, shares) if shares else None,
                )

    def _between_powers(self, counts: Array) -> list[tuple[Array | None, Array]]:
        logarithm = self._logarithms[counts]
        power = np.floor(logarithm)
        return [(1 - (logarithm - power), power), (logarithm - power, power + 1)]

    def values(self, entries: Array | slice, counts: Array, totals: Array) -> Array:
        """M(f, w), were these the counts, of which none is 0."""
        return self._values(self.meta_features(entries, counts, totals), counts, totals)

    def _values(self, meta_features: Iterable[MetaFeature], counts: Array, totals: Array) -> Array:
        adjustment = np.full(len(counts), self._offset)
        for place, share in meta_features:
            weight = self.weights[place]
            adjustment += weight if share is None else weight * share
        return np.exp(adjustment) * counts / totals

    def loss_and_gradient(self, words: Array) -> tuple[float, Array]:
        """Of words of the text, by number: the sum of their loss, and its gradient in `weights`."""
        chosen, number = self.matrix.events[words], len(words)
        row, column = np.nonzero(chosen != NONE)
        entries = chosen[row, column]
        count, total = self.matrix.counts[entries], self.matrix.totals[entries]
        # An entry predicts its word where that follows, if it is there once more, and where others follow.
        follows, others = np.flatnonzero(count > 1), np.flatnonzero(total > count)
        used = np.concatenate([follows, others])
        counts, totals = np.concatenate([count[follows] - 1, count[others]]), total[used] - 1
        meta_features = list(self.meta_features(entries[used], counts, totals))
        right, wrong = np.split(self._values(meta_features, counts, totals), [len(follows)])
        wrong = wrong * ((total - count) / count)[others]
        uniform = np.exp(self.weights[-1])
        predicted = np.bincount(row[follows], right, number) + uniform * self._share
        loss = right.sum() + wrong.sum() + number * uniform - np.log(predicted).sum()
        by_entry = np.concatenate([right * (1 - 1 / predicted[row[follows]]), wrong])
        by_uniform = uniform * (number - self._share * (1 / predicted).sum())
        return loss, np.append(self._gradient(meta_features, by_entry), by_uniform)

    def _gradient(self, meta_features: Sequence[MetaFeature], by_entry: Array) -> Array:
        """In the weights of meta-features, of the gradient in A of each entry."""
        places = np.concatenate([place for place, _ in meta_features])
        parts = [by_entry if share is None else by_entry * share for _, share in meta_features]
        return np.bincount(places, np.concatenate(parts), 1 << self.bits)

    def model(self, boundary: int | None) -> SnmModel:
        """What is left of it: the matrix, and the sums of its rows."""
        skip_grams = self.matrix.skip_grams
        weights: list[list[Array]] = [[] for _ in skip_grams.chains]
        totals: list[list[Array]] = [[] for _ in skip_grams.chains]
        for chain, level, keys in skip_grams.levels():
            values = self._adjusted(self.matrix.starts[chain, level], len(keys))
            if not (chain or level):
                values += np.exp(self.weights[-1]) * self.uniform  # as the unigrams, it is always there
            feature = keys // skip_grams.vocabulary_size
            total = np.bincount(feature, values, skip_grams.features(chain, level))
            weights[chain].append(values.astype(np.float32))
            totals[chain].append(total.astype(np.float32))
        return SnmModel(
            skip_grams.vocabulary_size, skip_grams.chains, boundary, skip_grams.keys, weights, totals
        )

    def _adjusted(self, first: int, size: int) -> Array:
        """M(f, w) of so many entries from the first on."""
        values = []
        for start in range(first, first + size, PIECE):
            part = slice(start, min(start + PIECE, first + size))
            counts = self.matrix.counts[part]  # 0 of words that do not occur
            value = self.values(part, np.maximum(counts, 1), self.matrix.totals[part])
            values.append(np.where(counts > 0, value, 0.0))
        return np.concatenate(values)


def _hashed(number: int, values: Sequence[Array], bits: int) -> Array:
    """Places of the meta-features of a number and values, of 2^bits."""
    place = np.full(len(values[0]), number * MULTIPLIER % 2**64, np.uint64)
    for value in values:
        place = (place ^ (value.astype(np.uint64) + np.uint64(1))) * np.uint64(MULTIPLIER)
        place ^= place >> np.uint64(29)
    return (place >> np.uint64(64 - bits)).astype(np.int64)


def adjust(adjustment: Adjustment, epochs: int, learning_rate: float, seed: int = 1) -> None:
    """Learn the adjustment by AdaGrad (Duchi et al. 2011), from the words of the text in random order.

    Raises ValueError where the loss is not finite.
    """
    words = len(adjustment.matrix.events)
    size = min(max(words // STEPS, 1), BATCH)
    draw = np.random.default_rng(seed)
    squares = np.ones_like(adjustment.weights)
    with _progress_bar(epochs * words) as bar, np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for _ in range(epochs):
            order = draw.permutation(words)
            for start in range(0, words, size):
                part = order[start : start + size]
                loss, gradient = adjustment.loss_and_gradient(part)
                if not math.isfinite(loss):
                    raise ValueError(
                        f"the adjustment's loss is {loss}: lower --learning_rate={learning_rate}"
                    )
                squares += gradient**2
                adjustment.weights -= learning_rate * gradient / np.sqrt(squares)
                bar.set_postfix(loss=f"{loss / len(part):.3f}", refresh=False)
                bar.update(len(part))


def _progress_bar(words: int) -> tqdm:
    """On stderr, where it takes more than two seconds; lines where it is no terminal."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=words,
        desc="adjustment",
        unit="word",
        unit_scale=True,
        delay=2,
        mininterval=0.2 if terminal else 10,
        dynamic_ncols=terminal,
        ascii=not terminal,
    )
