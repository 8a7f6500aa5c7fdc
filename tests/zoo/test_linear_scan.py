"""The parallel evaluation of linear recurrences against a plain loop in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from oracles import difference_along

from zoo.linear_scan import before, held, last, linear_scan

BATCH, UNITS = 2, 3
LENGTHS = (0, 1, 2, 7, 100)


def loop(decay, increment, initial):
    states, state = np.zeros_like(increment), initial
    for now in range(len(decay)):
        state = states[now] = decay[now] * state + increment[now]
    return states


def random_values(time: int):
    random = np.random.default_rng(time)
    decay = random.uniform(-1, 1, size=(time, BATCH, UNITS))
    decay[random.random(decay.shape) < 0.2] = 0
    decay[random.random(decay.shape) < 0.2] = 1
    return decay, random.normal(size=decay.shape), random.normal(size=(BATCH, UNITS))


def gradients(decay, increment, initial, weights):
    with tf.GradientTape() as tape:
        tape.watch([decay, increment, initial])
        states = linear_scan(decay, increment, initial)
        loss = tf.reduce_sum(states * weights)
    return states, tape.gradient(loss, [decay, increment, initial])


SPEC = tf.TensorSpec([None, None, UNITS], tf.float64)
MODES = {
    "eager": gradients,
    "graph": tf.function(gradients),
    "dynamic graph": tf.function(
        gradients, input_signature=[SPEC, SPEC, tf.TensorSpec([None, UNITS], tf.float64), SPEC]
    ),
    "xla": tf.function(gradients, jit_compile=True),
}


@pytest.mark.parametrize("mode", MODES)
def test_states_and_gradients(mode):
    for time in LENGTHS:
        values = random_values(time)
        weights = np.random.default_rng(0).normal(size=(time, BATCH, UNITS))
        states, found = MODES[mode](*(tf.constant(value) for value in (*values, weights)))
        np.testing.assert_allclose(states, loop(*values), rtol=1e-12, atol=1e-12)

        def loss(values=values, weights=weights):
            return (loop(*values) * weights).sum()

        for value, gradient in zip(values, found, strict=True):
            assert gradient.shape == value.shape
            direction = np.random.default_rng(1).normal(size=value.shape)
            slope = difference_along(direction, loss, value)
            np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("decay", [0.0, 1.0, 1e-30])
def test_products_of_decays_that_vanish_or_stay(decay):
    """In single precision the product of two decays of 1e-30 is zero."""
    _, increment, initial = random_values(100)
    decays = np.full_like(increment, decay)
    arguments = [tf.constant(value, tf.float32) for value in (decays, increment, initial)]
    states = linear_scan(*arguments)
    assert states.dtype == tf.float32
    np.testing.assert_allclose(states, loop(decays, increment, initial), rtol=1e-5, atol=1e-5)


def test_known_shapes_stay_known():
    sequence, state = tf.TensorSpec([7, BATCH, UNITS]), tf.TensorSpec([BATCH, UNITS])
    concrete = tf.function(linear_scan).get_concrete_function(sequence, sequence, state)
    assert concrete.structured_outputs.shape == (7, BATCH, UNITS)


def test_held_values_are_those_of_the_last_step_that_counts():
    values = tf.reshape(tf.range(1.0, 6.0), [5, 1, 1])
    mask = tf.constant([[False], [True], [False], [False], [True]])
    initial = tf.fill([1, 1], 9.0)
    np.testing.assert_array_equal(held(values, mask, initial)[:, 0, 0], [9, 2, 2, 2, 5])
    np.testing.assert_array_equal(held(values, None, initial), values)


def test_states_before_each_step_and_after_all():
    states, initial = tf.reshape(tf.range(1.0, 4.0), [3, 1, 1]), tf.zeros([1, 1])
    np.testing.assert_array_equal(before(states, initial)[:, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(last(states, initial), [[3]])
    assert before(states[:0], initial).shape == (0, 1, 1)
    np.testing.assert_array_equal(last(states[:0], initial), initial)
