"""Interpolation weights against a grid search, and against what they are to do."""

import numpy as np
import pytest

from training.interpolation import fit_weights, interpolate


def some_models(count, tokens=400):
    """Models that are good at tokens of their own."""
    random = np.random.default_rng(5)  # of three models each is worth having
    quality = random.uniform(0.5, 2.0, size=(count, 1))
    return -random.gamma(quality, size=(count, tokens))


def mean(log_probs, weights):
    return np.log(np.asarray(weights) @ np.exp(log_probs)).mean()


def test_is_the_sum_of_probabilities():
    log_probs = some_models(3) - [[2000.0], [2001.0], [2000.0]]
    weights = np.array([0.5, 0.2, 0.3])
    expected = np.log(weights @ np.exp(log_probs + 2000.0)) - 2000.0
    np.testing.assert_allclose(interpolate(log_probs, weights), expected, rtol=1e-12)
    np.testing.assert_allclose(interpolate(log_probs[:1], np.ones(1)), log_probs[0], rtol=1e-12)


def test_weights_are_the_best_of_a_grid():
    log_probs = some_models(3)
    weights = fit_weights(log_probs)
    assert weights.sum() == pytest.approx(1.0)
    steps = np.arange(201) / 200
    grid = [(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1]
    best = max(grid, key=lambda candidate: mean(log_probs, candidate))
    np.testing.assert_allclose(weights, best, atol=0.006)
    assert mean(log_probs, weights) >= mean(log_probs, best)
    assert weights.min() > 0.05


def test_weights_are_a_fixed_point():
    log_probs = some_models(4)
    weights = fit_weights(log_probs)
    shares = weights[:, None] * np.exp(log_probs)
    again = (shares / shares.sum(0)).mean(1)
    np.testing.assert_allclose(again, weights, atol=1e-8)


def test_a_model_that_is_worse_everywhere_gets_nothing():
    good = some_models(1)
    weights = fit_weights(np.concatenate([good, good - 1.0]))
    np.testing.assert_allclose(weights, [1.0, 0.0], atol=1e-7)


def test_a_token_that_one_model_thinks_impossible():
    log_probs = some_models(2)
    log_probs[0, 3] = -np.inf
    weights = fit_weights(log_probs)
    assert 0 < weights[0] < 1
    assert np.isfinite(interpolate(log_probs, weights)).all()
