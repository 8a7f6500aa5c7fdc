"""The linear-chain CRF against brute force over all sequences of tags."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from zoo.crf import IndependentTags, LinearChainCRF
from zoo.spans import legal_moves

TAG_SETS = {
    "plain": ("noun", "verb", "other"),
    "BIO": ("B-x", "B-y", "I-x", "I-y", "O"),
    "BIOES": ("B-x", "E-x", "I-x", "O", "S-x"),
}
LENGTHS = (4, 1, 3, 2)


@pytest.fixture(params=TAG_SETS)
def crf(request, randomize):
    crf = LinearChainCRF(TAG_SETS[request.param], dtype="float64")
    crf.build((None, None, len(crf.tags)))
    return randomize(crf, scale=1.0)


@pytest.fixture
def scores(crf):
    return np.random.default_rng(1).normal(size=(len(LENGTHS), max(LENGTHS), len(crf.tags)))


MASK = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, np.newaxis]


def is_legal(crf, path):
    first, moves, last = legal_moves(crf.tags)
    return first[path[0]] and last[path[-1]] and all(moves[pair] for pair in itertools.pairwise(path))


def all_paths(crf, scores):
    """Score by legal path, of one sequence [time, tags]."""
    first, moves, last = (np.asarray(weight) for weight in (crf.first, crf.moves, crf.last))
    paths = filter(
        lambda path: is_legal(crf, path), itertools.product(range(len(crf.tags)), repeat=len(scores))
    )
    return {
        path: first[path[0]]
        + last[path[-1]]
        + sum(scores[step, tag] for step, tag in enumerate(path))
        + sum(moves[pair] for pair in itertools.pairwise(path))
        for path in paths
    }


def probabilities(crf, scores):
    paths = all_paths(crf, scores)
    total = np.logaddexp.reduce(list(paths.values()))
    return {path: np.exp(score - total) for path, score in paths.items()}


def padded(path):
    return [*path, *[0] * (max(LENGTHS) - len(path))]


def test_log_likelihood_of_every_path(crf, scores):
    for row, length in enumerate(LENGTHS):
        expected = probabilities(crf, scores[row, :length])
        paths = list(expected)
        repeated = np.repeat(scores[row : row + 1], len(paths), axis=0)
        mask = np.repeat(MASK[row : row + 1], len(paths), axis=0)
        got = crf.log_likelihood(repeated, np.array([padded(path) for path in paths], np.int32), mask)
        np.testing.assert_allclose(np.exp(got), list(expected.values()), rtol=1e-9)


def test_what_is_not_legal_has_probability_zero(crf, scores):
    every = itertools.product(range(len(crf.tags)), repeat=3)
    illegal = [path for path in every if not is_legal(crf, path)]
    assert bool(illegal) == (crf.tags != TAG_SETS["plain"])
    if illegal:
        repeated = np.repeat(scores[2:3], len(illegal), axis=0)
        tags = np.array([padded(path) for path in illegal], np.int32)
        assert np.all(
            np.exp(crf.log_likelihood(repeated, tags, np.repeat(MASK[2:3], len(tags), axis=0))) == 0
        )


def test_best_is_the_likeliest_path(crf, scores):
    got = crf.best(tf.constant(scores), tf.constant(MASK)).numpy()
    for row, length in enumerate(LENGTHS):
        paths = probabilities(crf, scores[row, :length])
        assert got[row].tolist() == padded(max(paths, key=paths.get))


def test_marginals_are_sums_over_paths(crf, scores):
    got = crf.marginals(tf.constant(scores), tf.constant(MASK)).numpy()
    for row, length in enumerate(LENGTHS):
        expected = np.zeros((length, len(crf.tags)))
        for path, probability in probabilities(crf, scores[row, :length]).items():
            expected[range(length), path] += probability
        np.testing.assert_allclose(got[row, :length], expected, rtol=1e-9, atol=1e-12)


def test_gradients_are_those_of_brute_force(crf, scores):
    """d log P(y) / d s_t[k] = [y_t = k] - P(y_t = k); and likewise for moves, by their expected number."""
    tags = crf.best(tf.constant(scores), tf.constant(MASK))
    watched = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(watched)
        total = tf.reduce_sum(crf.log_likelihood(watched, tags, tf.constant(MASK)))
    to_scores, to_moves = tape.gradient(total, [watched, crf.moves.value])
    expected_scores, expected_moves = np.zeros(scores.shape), np.zeros(crf.moves.shape)
    for row, length in enumerate(LENGTHS):
        gold = tuple(tags.numpy()[row, :length])
        paths = probabilities(crf, scores[row, :length])
        for path, weight in [(gold, 1.0), *((path, -probability) for path, probability in paths.items())]:
            expected_scores[row, range(length), path] += weight
            for pair in itertools.pairwise(path):
                expected_moves[pair] += weight
    np.testing.assert_allclose(to_scores, expected_scores, atol=1e-9)
    np.testing.assert_allclose(to_moves, expected_moves, atol=1e-9)


def test_a_row_of_padding_counts_nothing(crf, scores):
    mask = MASK.copy()
    mask[1] = False
    tags = np.zeros(mask.shape, np.int32)
    assert crf.log_likelihood(scores, tags, mask)[1] == 0
    assert np.all(np.isfinite(crf.log_likelihood(scores, tags, mask)))


@pytest.mark.parametrize("kind", [LinearChainCRF, IndependentTags])
def test_a_sequence_alone_is_the_same(kind, randomize):
    distribution = kind(TAG_SETS["BIO"])
    distribution.build((None, None, 5))
    randomize(distribution)
    scores = np.random.default_rng(2).normal(size=(len(LENGTHS), max(LENGTHS), 5)).astype(np.float32)
    best, marginals = distribution.best(scores, MASK), distribution.marginals(scores, MASK)
    for row, length in enumerate(LENGTHS):
        alone, mask = scores[row : row + 1, :length], np.ones((1, length), bool)
        np.testing.assert_array_equal(distribution.best(alone, mask)[0], best[row, :length])
        np.testing.assert_allclose(
            distribution.marginals(alone, mask)[0], marginals[row, :length], rtol=1e-5, atol=1e-6
        )


def test_independent_tags_are_a_softmax_each():
    scores = np.random.default_rng(3).normal(size=(4, 4, 3))
    distribution = IndependentTags("abc", dtype="float64")
    softmax = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(distribution.marginals(scores, MASK), softmax)
    np.testing.assert_array_equal(
        distribution.best(tf.constant(scores), tf.constant(MASK)), np.where(MASK, softmax.argmax(-1), 0)
    )
    tags = np.random.default_rng(4).integers(0, 3, (4, 4)).astype(np.int32)
    picked = np.take_along_axis(np.log(softmax), tags[..., np.newaxis], -1)[..., 0]
    np.testing.assert_allclose(distribution.log_likelihood(scores, tags, MASK), (picked * MASK).sum(1))
