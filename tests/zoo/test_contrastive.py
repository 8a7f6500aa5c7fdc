"""Contrastive search over a made-up recurrent model, against the paper's equation in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from oracles import log_softmax, softmax

from zoo import decoding
from zoo.decoding import NOWHERE, Context

VOCABULARY, UNITS, END = 7, 3, 6
RANDOM = np.random.default_rng(4)
INPUT = RANDOM.normal(size=(VOCABULARY, UNITS))
RECURRENT = RANDOM.normal(size=(UNITS, UNITS))
OUTPUT = RANDOM.normal(scale=1.5, size=(UNITS, VOCABULARY))
PROMPTS = [[1], [2, 3], [3, 3, 1, 5], [5, 4]]


def advance(token, states):
    hidden = tf.tanh(tf.gather(tf.constant(INPUT, tf.float32), token) + states["h"] @ RECURRENT)
    return hidden, hidden @ OUTPUT, {"h": hidden}


def without_zero(logits):
    return tf.where(tf.range(VOCABULARY) == 0, -float("inf"), logits)


def context(prompts):
    length = max(map(len, prompts))
    hidden = np.full((len(prompts), length, UNITS), 9.0)  # in padding, what must not be looked at
    for row, prompt in enumerate(prompts):
        hidden[row, : len(prompt)] = read(prompt)
    last = np.array([hidden[row, len(prompt) - 1] for row, prompt in enumerate(prompts)], np.float32)
    return Context(
        tf.constant(last @ OUTPUT, tf.float32),
        {"h": tf.constant(last)},
        tf.constant(hidden, tf.float32),
        tf.sequence_mask([len(prompt) for prompt in prompts], length),
    )


def search(prompts, limits, top_k, alpha, end_id=None):
    function = tf.function(decoding.contrastive_search, autograph=False)
    found = function(
        advance,
        context(prompts),
        tf.constant(limits),
        tf.constant(top_k),
        tf.constant(alpha, tf.float32),
        without_zero,
        end_id,
    )
    assert (found.stop.numpy() == NOWHERE).all()
    ids = [
        row[:length].tolist() for row, length in zip(found.ids.numpy(), found.lengths.numpy(), strict=True)
    ]
    return ids, found.log_prob.numpy()


def read(ids):
    """[tokens, units]"""
    hidden, state = [], np.zeros(UNITS)
    for token in ids:
        state = np.tanh(INPUT[token] + state @ RECURRENT)
        hidden.append(state)
    return np.array(hidden)


def in_numpy(prompt, limit, top_k, alpha, end_id=None):
    said, log_prob = list(prompt), 0.0

    def cosine(first, second):
        return first @ second / np.linalg.norm(first) / np.linalg.norm(second)

    for _ in range(limit):
        before = read(said)
        logits = before[-1] @ OUTPUT
        probability = softmax(np.where(np.arange(VOCABULARY) == 0, -np.inf, logits))
        best = {}
        for token in [token for token in np.argsort(-probability)[:top_k] if token]:
            penalty = max(cosine(read([*said, token])[-1], each) for each in before)
            best[int(token)] = (1 - alpha) * probability[token] - alpha * penalty
        token = max(best, key=best.get)
        log_prob += log_softmax(logits)[token]
        said.append(token)
        if token == end_id:
            break
    return said[len(prompt) :], log_prob


@pytest.mark.parametrize("end_id", [None, END])
def test_contrastive_search_is_the_papers_equation(end_id):
    """Rows that differ in prompt, limit, candidates and penalty, each against itself alone."""
    settings = [
        (9, 4, 0.6),
        (12, 3, 0.5),
        (0, 2, 0.3),
        (12, 7, 0.9),
        (12, 100, 1.0),
        (7, 1, 0.7),
        (12, 5, 0.0),
    ]
    settings = settings * 4
    prompts = [PROMPTS[row // 7] for row in range(28)]
    ids, log_prob = search(prompts, *zip(*settings, strict=True), end_id)
    for row, prompt in enumerate(prompts):
        expected, expected_log_prob = in_numpy(prompt, *settings[row], end_id)
        assert ids[row] == expected
        assert log_prob[row] == pytest.approx(expected_log_prob, rel=1e-4, abs=1e-6)
    ended = [row for row in range(28) if len(ids[row]) < settings[row][0]]
    assert bool(ended) == (end_id is not None)
    assert len({tuple(row) for row in ids}) > 10


@pytest.mark.parametrize(("top_k", "alpha"), [(1, 0.8), (5, 0.0)])
def test_without_a_choice_or_a_penalty_it_is_greedy(top_k, alpha):
    ids, _ = search([[2]], [8], [top_k], [alpha])
    said = [2]
    for _ in range(8):
        said.append(1 + int((read(said)[-1] @ OUTPUT)[1:].argmax()))
    assert ids[0] == said[1:]


def test_a_row_is_alike_alone_and_beside_others():
    settings = [8, 5, 3, 8], [2, 4, 7, 3], [0.6, 0.4, 0.8, 0.5]
    ids, log_prob = search(PROMPTS, *settings)
    for row, prompt in enumerate(PROMPTS):
        alone = search([prompt], *([each[row]] for each in settings))
        assert alone[0][0] == ids[row]
        assert alone[1][0] == pytest.approx(log_prob[row], rel=1e-5)


def test_fewer_allowed_tokens_than_candidates():
    """All but token 5 are forbidden."""
    found = decoding.contrastive_search(
        advance,
        context([[1]]),
        tf.constant([3]),
        tf.constant([4]),
        tf.constant([1.0]),
        lambda logits: tf.where(tf.range(VOCABULARY) == 5, logits, -float("inf")),
    )
    assert found.ids.numpy().tolist() == [[5, 5, 5]]
