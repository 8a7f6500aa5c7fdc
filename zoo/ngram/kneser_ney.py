"""Interpolated modified Kneser-Ney smoothing.

    P(w | h) = (c(h w) - D(c(h w))) / c(h) + gamma(h) P(w | h')
    gamma(h) = sum of D(c(h w)) over w / c(h),   c(h) = sum of c(h w) over w

h' is h without its first word; below the unigrams are all words alike. Of the highest order, c counts
occurrences; of the others, the different words before h w, so that a word which is frequent in one history
only (Francisco) is no likely guess in a new one. D takes one of three values for counts of 1, 2, and 3 or
more, by order, from n_i, how many n-grams have a count of i:

    D_i = i - (i + 1) n_1 / (n_1 + 2 n_2) n_(i+1) / n_i

Source: Chen and Goodman 1998, TR-10-98, section 3 and equation 26; as KenLM's lmplz computes it (Heafield et
al. 2013, P13-2121): n-grams at the beginning of a sentence, before which there is no word, keep their counts.
Differs from lmplz: for n_i, that takes the occurrences of the last n-gram of each order but the highest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.ngram.backoff import BackoffModel, find
from zoo.ngram.counting import Array, Counts

FALLBACK = (0.5, 1.0, 1.5)


def estimate(
    counts: Counts,
    prune: Sequence[int] = (),
    fallback: Sequence[float] | None = None,
    open_vocabulary: bool = True,
) -> BackoffModel:
    """The model of the n-grams counted.

    Args:
        counts: of the training text.
        prune: of each order, the count up to which n-grams are left out, their probability going to the
            shorter history; the last holds for all further orders. Smoothing is that of all n-grams.
        fallback: D of counts 1, 2, and 3 or more, for orders where the counts give none.
        open_vocabulary: words that did not occur have a share of the uniform distribution, and are possible.

    Raises:
        ValueError: the thresholds are not fit, or the discounts of an order cannot be estimated.
    """
    limits = thresholds(prune, counts.order)
    kept = [number > limit for number, limit in zip(counts.counts, limits, strict=True)]
    kept[0][:] = True
    suffixes = suffix_indices(counts)
    uniform = (counts.counts[0] > 0) | open_vocabulary
    lower = uniform / uniform.sum()
    probabilities: list[Array] = []
    gammas: list[Array] = []  # of the n-grams of the order below
    for level, values in enumerate(adjusted_counts(counts, suffixes)):
        if level:
            lower = probabilities[-1][suffixes[level]]
        discount = np.array([0.0, *discounts_of(level + 1, values, fallback)])[np.minimum(values, 3)]
        history = counts.keys[level] // counts.vocabulary_size
        histories = len(counts.keys[level - 1]) if level else 1
        total = np.bincount(history, values, histories)
        # What is pruned is taken off whole.
        taken = np.bincount(history, np.where(kept[level], discount, values), histories)
        gammas.append(np.divide(taken, total, out=np.ones(histories), where=total > 0))
        probabilities.append((values - discount) / total[history] + gammas[-1][history] * lower)
    return _model(counts, kept, probabilities, gammas[1:])


def thresholds(prune: Sequence[int], order: int) -> list[int]:
    """The threshold of each order, from what was given. Raises ValueError where they do not go together."""
    given = list(prune) or [0]
    if len(given) > order:
        raise ValueError(f"pruning thresholds {given}: there are {order} orders")
    if given[0] != 0:
        raise ValueError(f"pruning thresholds {given}: the first has to be 0; a vocabulary prunes words")
    if sorted(given) != given:
        raise ValueError(f"pruning thresholds {given}: none may be lower than the one before")
    return given + given[-1:] * (order - len(given))


def suffix_indices(counts: Counts) -> list[Array]:
    """Of each n-gram the index of that without its first word, by level; nothing for the unigrams."""
    size = counts.vocabulary_size
    suffixes = [np.zeros(0, np.int64)]
    for level in range(1, counts.order):
        history, word = np.divmod(counts.keys[level], size)
        if level == 1:
            suffixes.append(word)
        else:
            suffixes.append(find(counts.keys[level - 1], suffixes[-1][history], word, size))
    return suffixes


def adjusted_counts(counts: Counts, suffixes: Sequence[Array]) -> list[Array]:
    """c of each n-gram, by level: occurrences of the longest, different words before the others."""
    adjusted = []
    begins = counts.keys[0] == counts.boundary  # with the boundary as its first word
    for level, number in enumerate(counts.counts[:-1]):
        different = np.bincount(suffixes[level + 1], minlength=len(number))
        # Nothing but the beginning of the text may be before an n-gram.
        different = np.maximum(different, number > 0)
        if level:
            begins = begins[counts.keys[level] // counts.vocabulary_size]
            different = np.where(begins, number, different)
        adjusted.append(different)
    return [*adjusted, counts.counts[-1]]


def discounts_of(order: int, counts: Array, fallback: Sequence[float] | None = None) -> tuple[float, ...]:
    """D of counts 1, 2, and 3 or more, from the adjusted counts of an order's n-grams.

    Raises ValueError where they are none, unless there is a `fallback`.
    """
    number = np.bincount(np.minimum(counts, 5), minlength=6)
    try:
        return _closed_form(order, *number[1:5].tolist())
    except ValueError:
        if fallback is None:
            raise
    if any(not 0 <= discount <= times for times, discount in enumerate(fallback, 1)):
        raise ValueError(
            f"fallback discounts {list(fallback)}: the first has to be 0 to 1, then 0 to 2, 0 to 3"
        )
    return tuple(fallback)


def _closed_form(order: int, *number: int) -> tuple[float, ...]:
    advice = "the text is too short or too regular; lower the order, or allow fallback discounts"
    for times, there_are in enumerate(number[:3], 1):
        if not there_are:
            raise ValueError(f"no Kneser-Ney discounts: no {order}-gram has a count of {times}: {advice}")
    share = number[0] / (number[0] + 2 * number[1])
    discounts = [i - (i + 1) * share * number[i] / number[i - 1] for i in (1, 2, 3)]
    for times, discount in enumerate(discounts, 1):
        if not 0 <= discount <= times:
            raise ValueError(
                f"no Kneser-Ney discounts: that of {order}-grams with a count of {times} would be "
                f"{discount:.4g}: {advice}"
            )
    return tuple(discounts)


def _model(
    counts: Counts, kept: Sequence[Array], probabilities: Sequence[Array], backoffs: Sequence[Array]
) -> BackoffModel:
    """What is kept, in logarithms; without the highest orders where nothing is."""
    size = counts.vocabulary_size
    order = max(level + 1 for level, is_kept in enumerate(kept) if is_kept.any())
    keys = [counts.keys[0]]
    for level in range(1, order):
        history, word = np.divmod(counts.keys[level][kept[level]], size)
        moved = np.cumsum(kept[level - 1]) - 1
        keys.append(moved[history] * size + word)
    with np.errstate(divide="ignore"):
        log_prob = [np.log(probabilities[level][kept[level]]).astype(np.float32) for level in range(order)]
        backoff = [np.log(backoffs[level][kept[level]]).astype(np.float32) for level in range(order - 1)]
    return BackoffModel(size, keys, log_prob, backoff)
