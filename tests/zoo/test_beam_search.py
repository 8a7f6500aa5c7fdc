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
    )
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
