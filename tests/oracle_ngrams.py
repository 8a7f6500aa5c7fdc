"""Kneser-Ney smoothing again, from its definition: dictionaries of tuples, one probability at a time."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

BEGINNING, END = -1, 1


class KneserNey:
    """P(w | h) by recursion over ever shorter histories.

    Sentences begin with BEGINNING and end with END, which are different words here; with `across`, the
    sentences are one text, in which each END is followed by the next sentence, and an END comes first.
    """

    def __init__(
        self,
        sentences: Sequence[Sequence[int]],
        order: int,
        vocabulary: Sequence[int],
        prune: Sequence[int] = (),
        fallback: Sequence[float] = (0.5, 1.0, 1.5),
        across: bool = False,
    ):
        self.order, self.vocabulary = order, vocabulary
        if across:
            sequences = [[END, *itertools.chain.from_iterable([*words, END] for words in sentences)]]
        else:
            sequences = [[BEGINNING, *words, END] for words in sentences]
        self.occurrences: Counter[tuple[int, ...]] = Counter()
        for words in sequences:
            for size in range(1, order + 1):
                for start in range(size == 1, len(words) - size + 1):
                    self.occurrences[tuple(words[start : start + size])] += 1
        self.prune = [*prune, *[prune[-1] if prune else 0] * order][:order]
        self.discounts = [self.closed_form(size) or fallback for size in range(1, order + 1)]

    def count(self, gram: tuple[int, ...]) -> int:
        if len(gram) == self.order or gram[0] == BEGINNING or gram not in self.occurrences:
            return self.occurrences[gram]
        before = {other[0] for other in self.occurrences if other[1:] == gram}
        return max(len(before), 1)

    def closed_form(self, size: int) -> list[float] | None:
        """Chen and Goodman 1998, equation 26; None where it makes no sense."""
        n = Counter(self.count(gram) for gram in self.occurrences if len(gram) == size)
        if not (n[1] and n[2] and n[3]):
            return None
        y = n[1] / (n[1] + 2 * n[2])
        discounts = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
        return discounts if min(discounts) >= 0 else None

    def probability(self, word: int, history: tuple[int, ...]) -> float:
        """P(word | history), of a history no longer than order - 1."""
        lower = self.probability(word, history[1:]) if history else 1 / len(self.vocabulary)
        followers = [
            gram for gram in self.occurrences if gram[:-1] == history and len(gram) == len(history) + 1
        ]
        if word not in self.vocabulary:
            return 0.0
        if not followers:
            return lower
        total = sum(map(self.count, followers))
        left, own = 0.0, 0.0
        for gram in followers:
            count = self.count(gram)
            is_kept = len(gram) == 1 or self.occurrences[gram] > self.prune[len(gram) - 1]
            discount = self.discounts[len(gram) - 1][min(count, 3) - 1] if is_kept else count
            left += discount
            if gram[-1] == word:
                own = count - discount
        return own / total + left / total * lower
