"""Sparse non-negative matrix models against the definition, finite differences, sums, and real text."""

from __future__ import annotations

import itertools
import pydoc_data.topics

import numpy as np
import pytest
from oracle_snm import SparseMatrix

from zoo.snm.adjustment import Adjustment, Matrix, adjust
from zoo.snm.skipgrams import Limits, count

BOUNDARY = 1
SIZE = 7  # of the vocabulary; word 6 never occurs
LIMITS = {
    "order 1": Limits(1),
    "5-grams": Limits(5),
    "skip-grams": Limits(3, 3, 2),
    "tied": Limits(2, 2, 0, 4),
    "both": Limits(3, 3, 1, 4),
}
CHAINS = {  # remote words, fewest and most skipped, levels
    "order 1": [(0, 0, 0, 1)],
    "5-grams": [(0, 0, 0, 5)],
    "skip-grams": [(0, 0, 0, 3), *((r, s, s, 4 - r) for s in (1, 2) for r in (1, 2, 3))],
    "tied": [(0, 0, 0, 2), (1, 1, 4, 1)],
    "both": [(0, 0, 0, 3), (1, 1, 1, 3), (2, 1, 1, 2), (3, 1, 1, 1), (1, 2, 4, 2)],
}


def text(sentences: int = 25, seed: int = 1) -> np.ndarray:
    """Of the words 2 to 5, some frequent and some rare; some of the sentences are empty."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(9, size=sentences)
    parts = ([*draw.choice([2, 3, 4, 5], n, p=[0.5, 0.3, 0.15, 0.05]), BOUNDARY] for n in lengths)
    return np.array([BOUNDARY, *itertools.chain.from_iterable(parts)])


def adjustment_of(name: str, boundary: int | None, open_vocabulary: bool = True) -> Adjustment:
    """With random weights."""
    adjustment = Adjustment(Matrix(count(text(), LIMITS[name], SIZE, boundary)), open_vocabulary, bits=12)
    adjustment.weights[:-1] = np.random.default_rng(2).normal(0, 0.3, len(adjustment.weights) - 1)
    return adjustment


@pytest.fixture(params=[BOUNDARY, None], ids=["sentences", "stream"])
def boundary(request):
    return request.param


@pytest.fixture(params=LIMITS)
def name(request):
    return request.param


@pytest.fixture
def adjustment(name, boundary):
    return adjustment_of(name, boundary)


@pytest.fixture
def oracle(name, boundary, adjustment):
    words = range(SIZE)
    return SparseMatrix(text().tolist(), CHAINS[name], SIZE, boundary, adjustment.weights, words)


def histories():
    """All short ones, and some that are longer, or begin within a text."""
    yield from itertools.product([0, BOUNDARY, 2, 3, 6], repeat=2)
    yield from (
        [],
        [BOUNDARY],
        [5],
        *(text(9, seed).tolist()[:length] for seed in (3, 4) for length in range(12)),
    )
    yield from ([4, 2, 2, 3, 2, 2, 2, 3], [2, 2, 2, 2, 2, 2, 2, 2], [2, 3, BOUNDARY, 2, 3], [2, 0, 3, 6, 2])


def test_all_skip_grams_are_counted(name, oracle, adjustment):
    counted = adjustment.matrix.skip_grams
    found = [
        (chain, level, len(keys), np.sort(counted.counts[chain][level]).tolist())
        for chain, level, keys in counted.levels()
    ]
    expected = []
    for (chain, level), grams in sorted(oracle.grams.items()):
        numbers = [oracle.counts[chain, level, gram[:-1]][gram[-1]] for gram in grams]
        expected.append((chain, level, len(grams), sorted(numbers)))
    assert found == expected
    assert len(found) == sum(levels for *_, levels in CHAINS[name])


def test_the_loss_is_that_of_the_definition(oracle, adjustment):
    loss, _ = adjustment.loss_and_gradient(np.arange(len(oracle.events)))
    assert loss == pytest.approx(oracle.loss(range(len(oracle.events))), rel=1e-6)


def test_the_gradient_is_that_of_finite_differences(adjustment):
    words = np.arange(30, 90)
    _, gradient = adjustment.loss_and_gradient(words)
    largest = np.argsort(-abs(gradient))[:25].tolist()
    assert abs(gradient[largest]).min() > 1e-4
    for place in {*largest, *range(0, len(gradient), 400), len(gradient) - 1}:
        value, losses = adjustment.weights[place], []
        for change in (1e-5, -1e-5):
            adjustment.weights[place] = value + change
            losses.append(adjustment.loss_and_gradient(words)[0])
        adjustment.weights[place] = value
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(gradient[place], abs=1e-5)


def test_each_probability_is_that_of_the_definition(oracle, adjustment, boundary):
    model = adjustment.model(boundary)
    for history in histories():
        np.testing.assert_allclose(model.distribution(history), oracle.distribution(history), rtol=1e-5)


def test_probabilities_of_every_history_sum_to_one(adjustment, boundary):
    """Those that it scores one by one, which divides by the totals of the rows."""
    model = adjustment.model(boundary)
    for history in histories():
        ids = [[*history, word] for word in range(SIZE)] if len(history) else []
        scored = [np.exp(model.log_probs(np.array(each))[-1]) for each in ids]
        assert sum(scored) == pytest.approx(1, abs=1e-5) if scored else not len(history)
        np.testing.assert_allclose(scored, model.distribution(history)[: len(scored)], rtol=1e-5)


@pytest.mark.parametrize("name", ["both"])
def test_a_closed_vocabulary(name, boundary):
    adjustment = adjustment_of(name, boundary, open_vocabulary=False)
    model = adjustment.model(boundary)
    possible = [BOUNDARY, 2, 3, 4, 5]
    oracle = SparseMatrix(text().tolist(), CHAINS[name], SIZE, boundary, adjustment.weights, possible)
    for history in histories():
        distribution = model.distribution(history)
        np.testing.assert_allclose(distribution, oracle.distribution(history), rtol=1e-5)
        assert np.flatnonzero(distribution).tolist() == possible
    loss, _ = adjustment.loss_and_gradient(np.arange(len(oracle.events)))
    assert loss == pytest.approx(oracle.loss(range(len(oracle.events))), rel=1e-6)


# Learning


def documentation() -> tuple[np.ndarray, np.ndarray, int]:
    """Words of the Python documentation; each ninth topic is held out, where new words are word 0."""
    topics = [pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)]
    parts = [
        " \n ".join(topics[k] for k in range(len(topics)) if (k % 9 == 0) == held) for held in (False, True)
    ]
    split = [part.replace("\n", " \n ").split(" ") for part in parts]
    words = {"?": 0, "\n": BOUNDARY}
    for word in split[0]:
        words.setdefault(word, len(words))
    training, held_out = (np.array([BOUNDARY, *(words.get(word, 0) for word in part)]) for part in split)
    return training, held_out, len(words)


def perplexity(adjustment: Adjustment, ids: np.ndarray) -> float:
    return float(np.exp(-adjustment.model(BOUNDARY).log_probs(ids).mean()))


def test_adjustment_and_skip_grams_improve_held_out_text():
    training, held_out, size = documentation()
    reached = {}
    for name, limits in {"n-grams": Limits(3), "skip-grams": Limits(3, 3)}.items():
        adjustment = Adjustment(Matrix(count(training, limits, size, BOUNDARY)))
        before = perplexity(adjustment, held_out)
        losses = [adjustment.loss_and_gradient(np.arange(5000))[0]]
        adjust(adjustment, 1, 0.1)
        losses.append(adjustment.loss_and_gradient(np.arange(5000))[0])
        reached[name] = perplexity(adjustment, held_out)
        assert reached[name] < 0.9 * before
        assert losses[1] < losses[0]
    assert reached["skip-grams"] < reached["n-grams"]


def test_learning_is_the_same_each_time():
    learned = []
    for _ in range(2):
        adjustment = adjustment_of("both", BOUNDARY)
        adjust(adjustment, 2, 0.1)
        learned.append(adjustment.weights)
    np.testing.assert_array_equal(*learned)
    assert (learned[0] != adjustment_of("both", BOUNDARY).weights).any()


def test_of_long_texts_some_words_are_learned_from(monkeypatch):
    skip_grams = count(text(), LIMITS["both"], SIZE, BOUNDARY)
    whole = Matrix(skip_grams).events
    monkeypatch.setattr("zoo.snm.adjustment.EVENTS", 20)
    part = Matrix(skip_grams).events
    assert part.shape == (20, whole.shape[1])
    assert all((whole == event).all(axis=1).any() for event in part)


@pytest.mark.parametrize(
    "ids", [[BOUNDARY, 2], [BOUNDARY, BOUNDARY], [BOUNDARY, 2, BOUNDARY], [2, 3, 2, 3]], ids=str
)
@pytest.mark.parametrize("limits", [Limits(1), Limits(5), Limits(12, 12, 3, 32)], ids=str)
def test_texts_of_a_few_words(ids, limits):
    adjustment = Adjustment(Matrix(count(np.array(ids), limits, SIZE, BOUNDARY)))
    adjust(adjustment, 3, 0.1)
    model = adjustment.model(BOUNDARY)
    assert model.chains[0].levels <= len(ids)
    assert all(len(keys) for levels in model.keys for keys in levels)
    for history in ([], [BOUNDARY], [2], [2, 3], [6] * 50):
        distribution = model.distribution(history)
        assert distribution.sum() == pytest.approx(1)
        assert (distribution > 0).all()


def test_too_many_skip_grams(monkeypatch):
    monkeypatch.setattr("zoo.snm.adjustment.MOST", 20)
    with pytest.raises(ValueError, match="n-grams and skip-grams; there may be 20"):
        Matrix(count(text(), Limits(3), SIZE, BOUNDARY))


def test_a_learning_rate_that_is_far_too_high():
    adjustment = adjustment_of("both", BOUNDARY)
    with pytest.raises(ValueError, match=r"loss is (inf|nan|-inf): lower --learning_rate=10000"):
        adjust(adjustment, 20, 1e4)


def test_what_cannot_be_counted():
    with pytest.raises(ValueError, match="no text to count"):
        count(np.array([BOUNDARY]), Limits(3), SIZE)
    with pytest.raises(ValueError, match="skip-grams go on from 3 words, n-grams have only 2"):
        count(text(), Limits(2, 3), SIZE)
