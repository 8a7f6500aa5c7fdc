"""Counting and Kneser-Ney smoothing, against the definition, published output, and sums."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from oracle_ngrams import BEGINNING, KneserNey

from zoo import ngram
from zoo.ngram import kneser_ney

UNKNOWN, BOUNDARY = 0, 1
SIZE = 7  # of the vocabulary; word 6 never occurs
FALLBACK = ngram.FALLBACK


def sentences(number: int, seed: int = 1, longest: int = 9) -> list[list[int]]:
    """Of the words 2 to 5, some frequent and some rare; some of the sentences are empty."""
    draw = np.random.default_rng(seed)
    return [
        draw.choice([2, 3, 4, 5], draw.integers(longest), p=[0.5, 0.3, 0.15, 0.05]).tolist()
        for _ in range(number)
    ]


def joined(texts: list[list[int]]) -> np.ndarray:
    return np.array([BOUNDARY, *itertools.chain.from_iterable([*words, BOUNDARY] for words in texts)])


def histories(order: int):
    """All that there may be, unknown words among them, shorter than an order."""
    for size in range(order):
        yield from itertools.product([UNKNOWN, BOUNDARY, 2, 3, 4, 5, 6], repeat=size)


def estimated(texts, order, across=False, **options):
    counts = ngram.count([joined(texts)], order, SIZE, None if across else BOUNDARY)
    return ngram.estimate(counts, **{"fallback": FALLBACK, **options})


@pytest.mark.parametrize("across", [False, True], ids=["sentences", "stream"])
@pytest.mark.parametrize("prune", [(), (0, 0, 1), (0, 1, 1, 3)], ids=str)
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("open_vocabulary", [True, False], ids=["open", "closed"])
def test_probabilities_of_every_history_sum_to_one(order, prune, across, open_vocabulary):
    texts = sentences(25)
    model = estimated(texts, order, across, prune=prune[:order], open_vocabulary=open_vocabulary)
    for history in histories(min(order, 4)):
        distribution = model.distribution(history)
        assert distribution.sum() == pytest.approx(1, abs=1e-6)
        assert (distribution[[UNKNOWN, 6]] > 0).all() == open_vocabulary


@pytest.mark.parametrize("across", [False, True], ids=["sentences", "stream"])
@pytest.mark.parametrize(("order", "prune"), [(1, ()), (2, ()), (3, (0, 0, 1)), (4, ()), (4, (0, 1, 2))])
def test_each_probability_is_that_of_the_definition(order, prune, across):
    texts = sentences(20)
    model = estimated(texts, order, across, prune=prune)
    oracle = KneserNey(texts, order, range(SIZE), prune, across=across)
    for history in [(), (2,), (BOUNDARY,), (2, 3), (BOUNDARY, 2), (2, 2, 3), (4, 2, 2), (5, 5, 2), (6, 3)]:
        used = history[max(len(history) - order + 1, 0) :]
        if not across:
            used = tuple(BEGINNING if word == BOUNDARY else word for word in used)
        expected = [oracle.probability(word, used) for word in range(SIZE)]
        np.testing.assert_allclose(model.distribution(history), expected, rtol=1e-5)


def test_discounts_are_those_of_the_definition():
    """Of a text in which each order has them: none falls back."""
    draw = np.random.default_rng(3)
    texts = [(2 + np.minimum(draw.geometric(0.2, 8), 30)).tolist() for _ in range(60)]
    counts = ngram.count([joined(texts)], 3, 40, BOUNDARY)
    adjusted = kneser_ney.adjusted_counts(counts, kneser_ney.suffix_indices(counts))
    oracle = KneserNey(texts, 3, range(40), fallback=())
    for order in (1, 2, 3):
        found = kneser_ney.discounts_of(order, adjusted[order - 1])
        assert len(found) == 3
        assert found == pytest.approx(oracle.discounts[order - 1])
    model = ngram.estimate(counts)
    history = (BEGINNING, texts[0][0])
    expected = [oracle.probability(word, history) for word in range(40)]
    np.testing.assert_allclose(model.distribution([BOUNDARY, texts[0][0]]), expected, rtol=1e-5)


# What lmplz (KenLM 0.3.0, --order 3 --prune 0 0 1 --discount_fallback) writes of ROSES, with <s> as </s>.
ROSES = ["a rose is a rose", "is a rose red", "", "a rose is grey"]
LMPLZ = """
-1.1875207 <unk> 0
-0.5343082 </s> -0.30103
-0.80730945 a -0.30103
-0.9570718 rose -0.30103
-0.80730945 is -0.30103
-0.9570718 red -0.30103
-0.9570718 grey -0.30103
-0.56686425 </s> </s> 0
-0.5047741 rose </s> 0
-0.18969764 red </s> 0
-0.18969764 grey </s> 0
-0.48422933 </s> a -0.30103
-0.38588837 is a -0.30103
-0.25555462 a rose -0.12493875
-0.6926707 </s> is 0
-0.6115635 rose is 0
-0.6539181 rose red 0
-0.6539181 is grey 0
-0.10924518 </s> a rose 0
-0.10924518 is a rose 0
-0.36306942 a rose is 0
"""
WORDS = ["<unk>", "</s>", "a", "rose", "is", "red", "grey"]


def test_the_model_of_lmplz():
    texts = [[WORDS.index(word) for word in line.split()] for line in ROSES]
    counts = ngram.count([joined(texts)], 3, len(WORDS), BOUNDARY)
    model = ngram.estimate(counts, prune=(0, 0, 1), fallback=FALLBACK)
    found = {}
    for level in range(3):
        backoff = model.backoff[level] if level < 2 else np.zeros(model.sizes[2])
        for words, *numbers in zip(model.words(level).tolist(), model.log_prob[level], backoff, strict=True):
            found[tuple(WORDS[word] for word in words)] = np.array(numbers) / np.log(10)
    rows = [line.split() for line in LMPLZ.split("\n") if line]
    expected = {tuple(words): (float(log_prob), float(backoff)) for log_prob, *words, backoff in rows}
    assert found.keys() == expected.keys()
    for words, numbers in expected.items():
        np.testing.assert_allclose(found[words], numbers, atol=2e-7)


# Counting


@pytest.mark.parametrize("boundary", [None, BOUNDARY])
@pytest.mark.parametrize("piece", [1, 2, 7, 50])
def test_a_text_in_pieces_is_counted_as_the_whole(piece, boundary):
    ids = joined(sentences(40))
    parts = np.split(ids, [0, 1, 5, 5, 60, 61])
    whole = ngram.count([ids], 4, SIZE, boundary)
    pieces = ngram.count(iter(parts), 4, SIZE, boundary, piece)
    assert len(whole) > 100
    for level in range(4):
        np.testing.assert_array_equal(whole.keys[level], pieces.keys[level])
        np.testing.assert_array_equal(whole.counts[level], pieces.counts[level])


def test_what_is_counted():
    counts = ngram.count([np.array([1, 2, 3, 1, 2, 3, 1])], 3, 4, BOUNDARY)
    assert counts.counts[0].tolist() == [0, 2, 2, 2]  # the first boundary is no word of the text
    assert [divmod(key, 4) for key in counts.keys[1].tolist()] == [(1, 2), (2, 3), (3, 1)]
    assert counts.counts[1].tolist() == [2, 2, 2]
    assert counts.counts[2].tolist() == [2, 2]  # </s> is not followed by the next sentence
    assert ngram.count([np.array([1, 2, 3, 1, 2, 3, 1])], 3, 4).counts[2].tolist() == [2, 2, 1]


@pytest.mark.parametrize("texts", [[], [np.zeros(0, int)], [np.array([BOUNDARY])]])
def test_no_text(texts):
    with pytest.raises(ValueError, match="no text"):
        ngram.count(texts, 3, SIZE, BOUNDARY)


def test_ids_out_of_the_vocabulary():
    with pytest.raises(ValueError, match="ids from 1 to 7 in a vocabulary of 7"):
        ngram.count([np.array([1, 7])], 2, 7)


# Small and bad input


def test_one_sentence():
    counts = ngram.count([joined([[2, 3, 4]])], 3, SIZE, BOUNDARY)
    with pytest.raises(ValueError, match="no 1-gram has a count of 2: the text is too short"):
        ngram.estimate(counts)
    model = ngram.estimate(counts, fallback=FALLBACK)
    # The trigram's half, and of the rest half, by each shorter history; uniform at last.
    expected = 0.5 + 0.5 * (0.5 + 0.5 * (0.5 / 4 + 0.5 / SIZE))
    assert model.distribution([2, 3])[4] == pytest.approx(expected)
    for history in histories(3):
        assert model.distribution(history).sum() == pytest.approx(1, abs=1e-6)


def test_order_one_knows_no_history():
    texts = sentences(30)
    model = estimated(texts, 1)
    ids = joined(texts)
    np.testing.assert_allclose(np.exp(model.log_probs(ids)), model.distribution([])[ids[1:]], rtol=1e-6)
    assert model.sizes == [SIZE]
    np.testing.assert_array_equal(model.distribution([2, 3]), model.distribution([]))


def test_order_twelve():
    texts = [[2, 3, 4, 5] * 4, [3, 4] * 5]
    model = estimated(texts, 12)
    oracle = KneserNey(texts, 12, range(SIZE))
    history = tuple([2, 3, 4, 5] * 3)[-11:]
    expected = [oracle.probability(word, history) for word in range(SIZE)]
    np.testing.assert_allclose(model.distribution(history), expected, rtol=1e-5)
    assert model.order == 12


def test_an_order_longer_than_the_sentences_is_that_of_the_longest():
    model = estimated([[2, 3], [3]], 12)
    assert model.order == 4  # <s> 2 3 </s>
    assert estimated([[2, 3], [3]], 4).distribution([2]).tolist() == model.distribution([2]).tolist()


def test_all_pruned_but_the_words():
    model = estimated(sentences(20), 3, prune=(0, 1000))
    assert model.sizes == [SIZE]
    assert model.distribution([2, 3]).sum() == pytest.approx(1)


def test_discounts_out_of_range():
    """Nine n-grams with a count of 3 for one with 2: D_2 = 2 - 3 / 3 * 9 = -7."""
    counts = np.repeat([1, 2, 3], [1, 1, 9])
    with pytest.raises(ValueError, match="that of 2-grams with a count of 2 would be -7"):
        kneser_ney.discounts_of(2, counts)
    assert kneser_ney.discounts_of(2, counts, FALLBACK) == FALLBACK


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ((1,), "the first has to be 0"),
        ((0, 2, 1), "none may be lower than the one before"),
        ((0, 0, 0, 1), "there are 3 orders"),
    ],
)
def test_thresholds_that_do_not_go_together(prune, message):
    with pytest.raises(ValueError, match=message):
        estimated(sentences(5), 3, prune=prune)


# Use


@pytest.mark.parametrize("across", [False, True], ids=["sentences", "stream"])
def test_a_text_is_scored_word_by_word(across):
    model = estimated(sentences(30), 4, across, prune=(0, 0, 1))
    ids = joined(sentences(10, seed=2))
    ids[5] = UNKNOWN
    expected = [np.log(model.distribution(ids[:place].tolist())[ids[place]]) for place in range(1, len(ids))]
    np.testing.assert_allclose(model.log_probs(ids), expected, rtol=1e-6)
    assert model.log_probs(ids[:1]).tolist() == []


def test_a_closed_vocabulary_has_no_unknown_words():
    model = estimated(sentences(30), 3, open_vocabulary=False)
    assert model.log_probs([BOUNDARY, 2, UNKNOWN]).tolist()[1] == -np.inf
    np.testing.assert_array_equal(np.flatnonzero(model.distribution([2]) == 0), [UNKNOWN, 6])
