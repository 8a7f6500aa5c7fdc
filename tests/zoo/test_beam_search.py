"""Beam search over a made-up model, against exhaustive and greedy search in Python."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from oracles import log_softmax

from zoo.beam_search import beam_search

VOCABULARY, END = 4, 1


class Model:
    """Logits depend on all that was said so far, by a number that each row carries as its state."""

    def __init__(self, seed):
        random = np.random.default_rng(seed)
        self.table = random.normal(scale=2.0, size=(7, VOCABULARY)).astype(np.float32)

    def __call__(self, token, states):
        number = (3 * states["number"] + token + 1) % 7
        return tf.gather(self.table, number), {"number": number}

    def log_prob(self, first, ids):
        """Of a sequence after the token END, given the first number."""
        number, token, total = first, END, 0.0
        for each in ids:
            number = (3 * number + token + 1) % 7
            total += log_softmax(np.float64(self.table[number]))[each]
            token = each
        return total


def found(model, firsts, widths, limits, penalty):
    result = beam_search(
        tf.function(model),
        tf.fill([len(firsts)], END),
        {"number": tf.constant(firsts)},
        tf.constant(widths),
        tf.constant(limits),
        END,
        penalty,
    ).best
    ids = [
        row[:length].tolist() for row, length in zip(result.ids.numpy(), result.lengths.numpy(), strict=True)
    ]
    return ids, result.log_prob.numpy()


def hypotheses(limit):
    """All that end, and those that reach the limit without an end."""
    words = [token for token in range(VOCABULARY) if token != END]
    for length in range(limit):
        yield from ((*ids, END) for ids in itertools.product(words, repeat=length))
    yield from itertools.product(words, repeat=limit)


def exhaustive(model, first, limit, penalty):
    def score(ids):
        return model.log_prob(first, ids) / ((5 + len(ids)) / 6) ** penalty

    best = max(hypotheses(limit), key=score)
    return [token for token in best if token != END], model.log_prob(first, best)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("seed", range(8))
def test_a_beam_wide_enough_finds_the_best_of_all(seed, penalty):
    model, firsts, limits = Model(seed), [0, 3, 5], [4, 3, 1]
    ids, log_prob = found(model, firsts, [100] * 3, limits, penalty)
    for row, (first, limit) in enumerate(zip(firsts, limits, strict=True)):
        expected, expected_log_prob = exhaustive(model, first, limit, penalty)
        assert ids[row] == expected
        assert log_prob[row] == pytest.approx(expected_log_prob, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_of_one_is_greedy(seed):
    model, limit = Model(seed), 6
    ids, log_prob = found(model, [2], [1], [limit], 1.0)
    number, token, said, total = 2, END, [], 0.0
    for _ in range(limit):
        number = (3 * number + token + 1) % 7
        token = int(model.table[number].argmax())
        total += log_softmax(np.float64(model.table[number]))[token]
        if token == END:
            break
        said.append(token)
    assert ids[0] == said
    assert log_prob[0] == pytest.approx(total, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_rows_do_not_depend_on_each_other(seed):
    model = Model(seed)
    firsts, widths, limits = [0, 1, 2, 3, 4], [1, 5, 2, 3, 30], [6, 2, 4, 1, 5]
    ids, log_prob = found(model, firsts, widths, limits, 0.8)
    for row in range(5):
        alone = found(model, firsts[row : row + 1], widths[row : row + 1], limits[row : row + 1], 0.8)
        assert alone[0][0] == ids[row]
        assert alone[1][0] == pytest.approx(log_prob[row], rel=1e-5, abs=1e-6)


def test_log_prob_is_that_of_what_was_found():
    model = Model(3)
    ids, log_prob = found(model, [0, 1], [3, 2], [5, 5], 1.0)
    for row, said in enumerate(ids):
        whole = said if len(said) == 5 else [*said, END]
        assert log_prob[row] == pytest.approx(model.log_prob(row, whole), rel=1e-5, abs=1e-6)


def score(model, first, ids, penalty):
    return model.log_prob(first, ids) / ((5 + len(ids)) / 6) ** penalty


@pytest.mark.parametrize("end", [END, None])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_hypotheses_of_all(seed, end):
    """As many as each row asks for, with a penalty a row; where nothing ends, all reach the limit."""
    model, firsts, limits, penalties, counts = Model(seed), [0, 3, 5], [4, 3, 1], [0.0, 0.7, 1.5], [20, 7, 30]
    result = beam_search(
        tf.function(model),
        tf.fill([3], END),
        {"number": tf.constant(firsts)},
        tf.fill([3], 300),
        tf.constant(limits),
        end,
        tf.constant(penalties),
        tf.constant(counts),
    )
    assert result.log_prob.shape == (3, 30)
    for row, (first, limit, penalty, count) in enumerate(zip(firsts, limits, penalties, counts, strict=True)):
        every = hypotheses(limit) if end == END else itertools.product(range(VOCABULARY), repeat=limit)
        best = sorted((score(model, first, ids, penalty) for ids in every), reverse=True)[:count]
        log_prob = result.log_prob[row].numpy()
        assert np.isneginf(log_prob[len(best) :]).all()
        found = set()
        for place, expected in enumerate(best):  # some are equally good
            said = result.ids[row, place, : result.lengths[row, place]].numpy().tolist()
            whole = said if len(said) == limit else [*said, end]
            assert log_prob[place] == pytest.approx(model.log_prob(first, whole), rel=1e-5, abs=1e-6)
            assert score(model, first, whole, penalty) == pytest.approx(expected, rel=1e-5, abs=1e-6)
            found.add(tuple(whole))
        assert len(found) == len(best)


def test_hypotheses_of_a_narrow_beam_do_not_depend_on_the_rows_beside():
    model, firsts, widths = Model(1), [0, 1, 2, 3], tf.constant([1, 5, 2, 3])

    def search(rows):
        return beam_search(
            tf.function(model),
            tf.fill([len(rows)], END),
            {"number": tf.gather(firsts, rows)},
            tf.gather(widths, rows),
            tf.gather([6, 5, 4, 6], rows),
            END,
            0.8,
            tf.gather(widths, rows),
        )

    together = search([0, 1, 2, 3])
    for row, width in enumerate(widths.numpy()):
        alone = search([row])
        np.testing.assert_allclose(alone.log_prob[0], together.log_prob[row, :width], rtol=1e-5)
        assert np.isneginf(together.log_prob[row, width:]).all()
        for place in range(width):
            length = alone.lengths[0, place]
            assert length == together.lengths[row, place]
            np.testing.assert_array_equal(alone.ids[0, place, :length], together.ids[row, place, :length])


def test_forbidden_tokens_are_in_no_hypothesis():
    model = Model(2)
    result = beam_search(
        tf.function(model),
        tf.fill([1], END),
        {"number": tf.constant([0])},
        tf.constant([9]),
        tf.constant([3]),
        None,
        hypotheses=9,
        allowed=lambda log_prob: tf.where(tf.range(VOCABULARY) == 2, -float("inf"), log_prob),
    )
    ids = result.ids[0].numpy()
    assert ids.shape == (9, 3)
    assert set(ids.flatten().tolist()) == {0, 1, 3}
    for said, log_prob in zip(ids.tolist(), result.log_prob[0].numpy(), strict=True):
        assert log_prob == pytest.approx(model.log_prob(0, said), rel=1e-5)
