"""The neural cache against its equations, one step at a time in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from zoo.neural_cache import empty_memory, mix_cache

RANDOM = np.random.default_rng(2)
TIME, UNITS, WORDS = 13, 3, 4
HIDDEN = RANDOM.normal(size=(2, TIME, UNITS)).astype(np.float32)
TEXT = RANDOM.integers(0, WORDS, size=(2, TIME)).astype(np.int32)
MODEL = np.log(RANDOM.dirichlet(np.ones(WORDS), size=(2, TIME))).astype(np.float32)


def log_prob_of(targets):
    return np.take_along_axis(MODEL, targets[..., None], axis=2)[..., 0]


def run(text, size, weight=0.3, flatness=0.7, windows=(TIME,)):
    memory, results, start = empty_memory(2, size, UNITS), [], 0
    for length in windows:
        part = (slice(None), slice(start, start + length))
        arguments = (log_prob_of(text)[part], HIDDEN[part], text[part])
        mixed, memory = mix_cache(*map(tf.constant, arguments), memory, weight, flatness)
        results.append(mixed.numpy())
        start += length
    assert start == TIME
    return np.concatenate(results, axis=1)


def brute_force(text, size, weight, flatness):
    """[row, time, word]: the whole distribution at each step."""
    result = np.exp(MODEL.astype(float))
    for row, now in np.ndindex(2, TIME):
        cache = np.zeros(WORDS)
        for past in range(max(0, now - size), now):
            cache[text[row, past]] += np.exp(flatness * HIDDEN[row, past] @ HIDDEN[row, now])
        if now:
            result[row, now] = (1 - weight) * result[row, now] + weight * cache / cache.sum()
    return result


@pytest.mark.parametrize("size", [1, 4, 50])
@pytest.mark.parametrize(("weight", "flatness"), [(0.3, 0.7), (1.0, 0.7), (0.3, 0.0)])
def test_is_the_equation(size, weight, flatness):
    expected = np.take_along_axis(brute_force(TEXT, size, weight, flatness), TEXT[..., None], axis=2)[..., 0]
    got = run(TEXT, size, weight, flatness)
    np.testing.assert_allclose(np.exp(got), expected, rtol=2e-5, atol=1e-7)
    assert np.abs(got - log_prob_of(TEXT))[:, 1:].max() > 0.1


def test_probabilities_add_up_to_one():
    for now in (0, 1, 7):
        total = np.zeros(2)
        for word in range(WORDS):
            text = TEXT.copy()
            text[:, now] = word
            total += np.exp(run(text, size=5)[:, now])
        np.testing.assert_allclose(total, 1.0, rtol=1e-5)


@pytest.mark.parametrize("windows", [(1,) * TIME, (5, 8), (12, 1), (2, 3, 4, 4)])
@pytest.mark.parametrize("size", [1, 4, 50])
def test_windows_of_any_length_are_one_text(windows, size):
    np.testing.assert_allclose(run(TEXT, size, windows=windows), run(TEXT, size), rtol=1e-5, atol=1e-6)


def test_sees_no_later_word():
    for now in range(TIME - 1):
        other = TEXT.copy()
        other[:, now + 1 :] = (other[:, now + 1 :] + 1) % WORDS
        got, expected = run(other, 50), run(TEXT, 50)
        np.testing.assert_array_equal(got[:, : now + 1], expected[:, : now + 1])
        assert (got[:, now + 1 :] != expected[:, now + 1 :]).any()


def test_of_weight_zero_is_none():
    np.testing.assert_allclose(run(TEXT, 5, weight=0.0), log_prob_of(TEXT), rtol=1e-6)


def test_of_large_products_overflows_nowhere():
    assert np.isfinite(run(TEXT, 50, flatness=1e4, weight=0.5)).all()
