"""Gradient flow against products of Jacobians in NumPy, and what the lecture says of it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from oracles import weights_of

from training.diagnostics import gradient_flow
from zoo.cells import LSTM, Elman

BATCH, TIME, FEATURES, UNITS = 3, 8, 2, 5


def inputs() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES))


def last_output(outputs):
    return tf.reduce_sum(outputs[:, -1] ** 2) / 2


def test_elmans_flow_is_the_product_of_its_jacobians(randomize):
    cell = Elman(UNITS, dtype="float64")
    cell.build((None, FEATURES))
    weights = weights_of(randomize(cell))
    hidden, history = np.zeros((BATCH, UNITS)), []
    for now in range(TIME):
        summed = inputs()[:, now] @ weights["input_kernel"] + hidden @ weights["recurrent_kernel"]
        hidden = 1 / (1 + np.exp(-summed - weights["bias"]))
        history.append(hidden)
    gradient, expected = hidden, []  # of half the sum of squares
    for hidden in reversed(history):
        expected.append(np.linalg.norm(gradient))
        gradient = gradient * hidden * (1 - hidden) @ weights["recurrent_kernel"].T
    flow = gradient_flow(cell, inputs(), last_output)
    np.testing.assert_allclose(flow["hidden"], expected[::-1], rtol=1e-10)


def test_it_vanishes_at_least_fourfold_a_step_under_the_logistic_function():
    cell = Elman(UNITS, recurrent_initializer="orthogonal", dtype="float64")
    norms = gradient_flow(cell, inputs(), last_output)["hidden"]
    assert np.all(norms[:-1] <= norms[1:] / 4)  # sigma' <= 1/4, and the kernel keeps lengths


def test_an_open_forget_gate_lets_it_through():
    cell = LSTM(UNITS, forget_bias=30.0, recurrent_initializer="zeros", dtype="float64")
    norms = gradient_flow(cell, inputs(), last_output)["cell_state"]
    np.testing.assert_allclose(norms, np.full(TIME, norms[-1]), rtol=1e-8)


def test_steps_after_the_loss_feel_nothing():
    flow = gradient_flow(LSTM(UNITS), inputs(), lambda outputs: tf.reduce_sum(outputs[:, 2]))
    for norms in flow.values():
        assert np.all(norms[:3] > 0)
        np.testing.assert_array_equal(norms[3:], np.zeros(TIME - 3))
