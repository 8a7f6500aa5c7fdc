"""How close texts come to the texts they should be."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

import sacrebleu


def translation_metrics(said: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU and chrF of a corpus as sacrebleu has them by default, 0 to 100, and the share that is exact.

    BLEU is of sacrebleu's 13a tokens, mixed case (Papineni et al. 2002; Post 2018, arXiv:1804.08771); chrF
    of character 6-grams, beta 2 (Popovic 2015).
    """
    return {
        "bleu": sacrebleu.corpus_bleu(said, [references]).score,
        "chrf": sacrebleu.corpus_chrf(said, [references]).score,
        "exact_match": sum(map(str.__eq__, said, references)) / max(len(said), 1),
    }


def answer_metrics(said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Exact match and F1, means over the questions, as SQuAD's evaluation counts them.

    Answers are compared in lower case, without punctuation and articles. F1 is that of their words:
    2 common / (said + right). Of several right answers the nearest counts.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1.
    """
    exact = matching = 0.0
    for answer, rights in zip(said, references, strict=True):
        exact += any(_normalized(answer) == _normalized(right) for right in rights)
        matching += max(_word_f1(answer, right) for right in rights)
    count = max(len(said), 1)
    return {"exact_match": exact / count, "f1": matching / count}


def _normalized(answer: str) -> list[str]:
    kept = "".join(character for character in answer.lower() if character not in string.punctuation)
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def _word_f1(said: str, right: str) -> float:
    words, right_words = _normalized(said), _normalized(right)
    if not words or not right_words:
        return float(words == right_words)
    common = (Counter(words) & Counter(right_words)).total()
    return 2 * common / (len(words) + len(right_words))
