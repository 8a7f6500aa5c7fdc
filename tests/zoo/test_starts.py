"""Cells of the Elman and GRU families start, and are limited, as their papers have it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import ORACLES, weights_of

from zoo.cells import CELLS, Cell

FEATURES, UNITS = 3, 50


def built(name: str, units: int = UNITS, features: int = FEATURES, **options) -> Cell:
    cell = CELLS[name](units, **options)
    cell.build((None, features))
    return cell


def test_irnn_starts_as_a_copy():
    cell = built("irnn", features=200)
    np.testing.assert_array_equal(cell.recurrent_kernel, np.eye(UNITS))
    np.testing.assert_array_equal(cell.bias, np.zeros(UNITS))
    np.testing.assert_allclose(np.std(cell.input_kernel), 0.001, rtol=0.05)
    state = np.random.default_rng(1).uniform(size=(2, UNITS)).astype("float32")
    np.testing.assert_array_equal(cell(tf.zeros([2, 200]), [state])[0], state)


def test_irnn_starts_as_a_scaled_identity():
    cell = built("irnn", recurrent_initializer=keras.initializers.Identity(0.01))
    np.testing.assert_array_equal(cell.recurrent_kernel, np.float32(0.01) * np.eye(UNITS, dtype="float32"))


def test_cells_of_one_kind_start_differently():
    for name in ("irnn", "indrnn", "antisymmetric", "fast_rnn"):
        first, second = built(name), built(name)
        assert np.abs(first.input_kernel - second.input_kernel).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "options", "kernels"),
    [
        ("jordan", {}, ["input_kernel", "output_kernel"]),
        ("minimal_rnn", {}, ["input_kernel", "latent_kernel"]),
        ("scrn", {}, ["input_kernel", "context_input_kernel", "context_kernel"]),
        ("fast_rnn", {"recurrent_rank": UNITS}, ["recurrent_kernel", "recurrent_factor"]),
    ],
)
def test_kernels_of_one_cell_start_differently(name, options, kernels):
    cell = built(name, features=UNITS, **options)
    values = [np.ravel(getattr(cell, kernel)) for kernel in kernels]
    correlations = np.corrcoef(values) - np.eye(len(values))
    assert np.abs(correlations).max() < 0.2


def test_indrnn_starts_between_0_and_1():
    weight = np.asarray(built("indrnn").recurrent_weight)
    assert 0 <= weight.min() < 0.2 < 0.8 < weight.max() <= 1


@pytest.mark.parametrize(("limit", "expected"), [(None, 6.0), (2 ** (1 / 100), 2 ** (1 / 100))])
def test_indrnn_is_limited_in_training(limit, expected):
    cell = built("indrnn", recurrent_limit=limit, recurrent_initializer="ones")
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.apply([tf.fill([UNITS], -5.0)], [cell.recurrent_weight])
    np.testing.assert_allclose(cell.recurrent_weight, np.full(UNITS, expected), rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.25])
def test_antisymmetric_has_imaginary_eigenvalues_and_diffusion(gamma):
    cell = built("antisymmetric", dtype="float64", gamma=gamma)
    eigenvalues = np.linalg.eigvals(cell.step_weights()["recurrent_kernel"])
    np.testing.assert_allclose(eigenvalues.real, -gamma, atol=1e-12)
    np.testing.assert_allclose(np.var(cell.recurrent_kernel), 1 / UNITS, rtol=0.1)


def test_gates_that_start_open_or_closed():
    np.testing.assert_array_equal(built("ugrnn", 2).bias, [1, 1, 0, 0])
    np.testing.assert_array_equal(built("ugrnn", 2, update_bias=0.5).bias, [0.5, 0.5, 0, 0])
    np.testing.assert_array_equal(built("rhn", 1, depth=3).bias, [-2, 0, -2, 0, -2, 0])
    uncoupled = built("rhn", 1, depth=2, coupled=False, transform_bias=-4)
    np.testing.assert_array_equal(uncoupled.bias, [-4, 0, 0, -4, 0, 0])


def test_scalars_of_the_fast_cells():
    fast_rnn, fast_grnn = built("fast_rnn"), built("fast_grnn", zeta=2.0)
    assert (float(fast_rnn.alpha), float(fast_rnn.beta)) == (-3, 3)
    assert (float(fast_grnn.zeta), float(fast_grnn.nu)) == (2, -4)


def test_low_ranks_have_few_weights():
    cell = built("fast_grnn", input_rank=2, recurrent_rank=4)
    assert cell.count_params() == (FEATURES + UNITS) * 2 + (UNITS + UNITS) * 4 + 2 * UNITS + 2


def test_rhn_has_the_papers_number_of_weights():
    """Of each layer and gate R [units, units] and b [units]; W [features, units] in the first layer only."""
    assert built("rhn").count_params() == 2 * (10 * (UNITS + 1) * UNITS + FEATURES * UNITS)


def test_rhn_steps_through_ten_layers_by_default(randomize):
    cell = randomize(built("rhn", 4, dtype="float64"))
    random = np.random.default_rng(1)
    inputs, state = random.normal(size=(2, FEATURES)), random.normal(size=(2, 4))
    expected, _ = ORACLES["rhn"](weights_of(cell), inputs, [state], depth=10)
    np.testing.assert_allclose(cell(inputs, [state])[0], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fast_rnn", {"input_rank": 0}, "input_rank must be at least 1"),
        ("fast_grnn", {"recurrent_rank": -1}, "recurrent_rank must be at least 1"),
        ("scrn", {"context_units": 0}, "context_units must be at least 1"),
        ("scrn", {"alpha": 1.0}, "alpha must be at least 0 and below 1"),
        ("rhn", {"depth": 0}, "depth must be at least 1"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        CELLS[name](UNITS, **options)
