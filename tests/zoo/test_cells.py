"""One step of each cell against its equations in NumPy, against Keras, and the contract of a cell."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import CASES, ORACLES, sigmoid, weights_of

from zoo.cells import CELLS, GRU, LSTM, Cell, Elman

BATCH, FEATURES, UNITS = 4, 3, 5


def test_every_cell_has_an_oracle():
    assert set(CELLS) == set(ORACLES)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def cell(case, randomize) -> Cell:
    name, options = case
    cell = CELLS[name](UNITS, dtype="float64", **options)
    cell.build((None, FEATURES))
    return randomize(cell)


@pytest.fixture
def values(cell):
    random = np.random.default_rng(1)
    return random.normal(size=(BATCH, FEATURES)), [random.normal(size=(BATCH, n)) for n in cell.state_size]


def assert_close(actual, expected, tolerance=1e-12):
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_step_is_the_equation(case, cell, values):
    name, options = case
    inputs, states = values
    output, new_states = cell(inputs, states)
    expected, expected_states = ORACLES[name](weights_of(cell), inputs, states, **options)
    assert_close([output, *new_states], [expected, *expected_states])


def test_step_is_the_equation_in_single_precision(case, randomize, values):
    name, options = case
    inputs, states = values
    cell = CELLS[name](UNITS, **options)
    cell.build((None, FEATURES))
    randomize(cell)
    output, new_states = cell(tf.constant(inputs, tf.float32), [tf.constant(x, tf.float32) for x in states])
    assert output.dtype == tf.float32
    expected, expected_states = ORACLES[name](weights_of(cell), inputs, states, **options)
    assert_close([output, *new_states], [expected, *expected_states], 1e-5)


def test_call_is_step_of_project(cell, values):
    inputs, states = values
    output, new_states = cell.step(cell.project(tf.constant(inputs)), [tf.constant(x) for x in states])
    expected, expected_states = cell(inputs, states)
    assert_close([output, *new_states], [expected, *expected_states])


def test_project_takes_steps_and_sequences_alike(cell):
    sequences = np.random.default_rng(2).normal(size=(BATCH, 6, FEATURES))
    whole = cell.project(tf.constant(sequences))
    for now in range(6):
        np.testing.assert_allclose(whole[:, now], cell.project(tf.constant(sequences[:, now])), rtol=1e-12)


def test_sizes(cell):
    if type(cell).build is Cell.build:
        width = len(cell.GATES) * UNITS
        shapes = {weight.name: tuple(weight.shape) for weight in cell.weights}
        assert shapes["input_kernel"] == (FEATURES, width)
        assert shapes["recurrent_kernel"] == (UNITS, width)
        assert shapes["bias"] == (width,)
    assert len(cell.state_size) == len(cell.STATES)
    states = cell.get_initial_state(batch_size=BATCH)
    assert [tuple(state.shape) for state in states] == [(BATCH, size) for size in cell.state_size]
    assert all(state.dtype == tf.float64 and not state.numpy().any() for state in states)


def test_order_of_gates():
    assert LSTM.GATES == ("input", "forget", "candidate", "output")
    assert GRU.GATES == ("update", "reset", "candidate")
    assert Elman.GATES == ("hidden",)
    assert LSTM.STATES == ("hidden", "cell_state")


def test_config_round_trip(case, cell, values):
    inputs, states = values
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(cell))
    assert type(copy) is type(cell)
    assert copy.get_config() == cell.get_config()
    copy.set_weights(cell.get_weights())
    assert_close([copy(inputs, states)[0]], [cell(inputs, states)[0]])


def test_options_survive_the_round_trip():
    lstm = LSTM(UNITS, forget_bias=0.25, kernel_initializer="he_normal", bias_initializer="ones")
    config = LSTM.from_config(lstm.get_config()).get_config()
    assert config["forget_bias"] == 0.25
    assert config["kernel_initializer"]["class_name"] == "HeNormal"
    assert config["bias_initializer"]["class_name"] == "Ones"


def blocks(cell: Cell) -> list[np.ndarray]:
    cell.build((None, FEATURES))
    return np.split(cell.recurrent_kernel.numpy(), cell.recurrent_kernel.shape[1] // UNITS, axis=1)


START_ORTHOGONAL = [
    name
    for name, kind in CELLS.items()
    if isinstance(kind(UNITS).recurrent_initializer, keras.initializers.Orthogonal)
]


@pytest.mark.parametrize("name", START_ORTHOGONAL)
def test_gates_start_orthogonal_and_different(name):
    starts = blocks(CELLS[name](UNITS)) + blocks(CELLS[name](UNITS))
    for index, block in enumerate(starts):
        np.testing.assert_allclose(block.T @ block, np.eye(UNITS), atol=1e-5)
        for other in starts[:index]:
            assert np.abs(block - other).max() > 0.01


@pytest.mark.parametrize("name", CELLS)
def test_a_seeded_start_is_repeatable_and_differs_by_gate(name):
    def seeded():
        return blocks(CELLS[name](UNITS, recurrent_initializer=keras.initializers.RandomNormal(seed=3)))

    first, second = seeded(), seeded()
    assert_close(first, second)
    assert len({block.tobytes() for block in first}) == len(first)


@pytest.mark.parametrize("forget_bias", [0.0, 1.0])
def test_forget_bias(forget_bias):
    cell = LSTM(2, forget_bias=forget_bias)
    cell.build((None, FEATURES))
    expected = [0, 0, forget_bias, forget_bias, 0, 0, 0, 0]
    np.testing.assert_array_equal(cell.bias.numpy(), expected)


def test_elman_is_the_lectures_by_default():
    cell = Elman(1, dtype="float64")
    cell.build((None, 1))
    cell.set_weights([np.array([[2.0]]), np.array([[3.0]]), np.array([0.5])])
    output, _ = cell(np.array([[0.1]]), [np.array([[0.2]])])
    np.testing.assert_allclose(output, [[sigmoid(2.0 * 0.1 + 3.0 * 0.2 + 0.5)]], rtol=1e-12)


@pytest.mark.parametrize("units", [0, -1])
def test_units_must_be_positive(units):
    with pytest.raises(ValueError, match="units must be at least 1"):
        LSTM(units)


def test_unknown_number_of_features_is_refused():
    with pytest.raises(ValueError, match="last dimension"):
        LSTM(2).build((None, None))
