"""One step of each cell against its equations in NumPy, and the contract of a cell."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import BATCH, FEATURES, UNITS, assert_close, random_values, randomize
from oracles import sigmoid, weights_of

from zoo.cells import CELLS, GRU, LSTM, Cell, Elman
from zoo.cells.base import GivenWeights, step_weights_from
from zoo.recurrence import Recurrent


@pytest.fixture
def cell(case) -> Cell:
    return case.layer().cell


@pytest.mark.parametrize("features", [FEATURES, UNITS], ids=["other size", "size of the state"])
def test_step_is_the_equation(case, features):
    cell = case.cell(dtype="float64")
    cell.build((None, features))
    randomize(cell)
    _, states = random_values(cell)
    inputs = np.random.default_rng(2).normal(size=(BATCH, features))
    output, new_states = cell(inputs, states)
    expected, expected_states = case.step(weights_of(cell))(inputs, states)
    assert_close([output, *new_states], [expected, *expected_states], 1e-12)


def test_call_is_step_of_project(cell):
    inputs, states = random_values(cell, time=1)
    output, new_states = cell.step(cell.project(tf.constant(inputs[:, 0])), [tf.constant(x) for x in states])
    expected, expected_states = cell(inputs[:, 0], states)
    assert_close([output, *new_states], [expected, *expected_states], 1e-12)


def test_project_takes_steps_and_sequences_alike(cell):
    inputs, _ = random_values(cell)
    whole = cell.project(tf.constant(inputs))
    for now in range(inputs.shape[1]):
        assert_close([whole[:, now]], [cell.project(tf.constant(inputs[:, now]))], 1e-12)


def test_sizes_and_names(cell):
    names = [weight.name for weight in cell.weights]
    for distinct in (names, cell.STATES, cell.GATES):
        assert len(set(distinct)) == len(distinct) > 0
    if type(cell).build is Cell.build:
        width = len(cell.GATES) * UNITS
        assert {weight.name: tuple(weight.shape) for weight in cell.weights} == {
            "input_kernel": (FEATURES, width),
            "recurrent_kernel": (UNITS, width),
            "bias": (width,),
        }
    inputs, states = random_values(cell, time=1)
    output, new_states = cell(inputs[:, 0], states)
    assert output.shape == (BATCH, cell.output_size)
    assert len(cell.state_size) == len(cell.STATES)
    assert [tuple(state.shape) for state in new_states] == [(BATCH, size) for size in cell.state_size]


class Noting(GivenWeights):
    """Notes the names that a step asks for."""

    def __init__(self, weights):
        super().__init__(weights)
        self.multiplied: set[str] = set()
        self.read: set[str] = set()

    def product(self, operand, name):
        self.multiplied.add(name)
        return super().product(operand, name)

    def weight(self, name):
        self.read.add(name)
        return super().weight(name)


def test_a_steps_weights_are_named_by_their_use(cell):
    """By their names the time loop knows what to differentiate how, and what dropping acts on."""
    inputs, states = random_values(cell, time=1)
    weights = Noting(cell.step_weights())
    with step_weights_from(weights):
        cell.step(cell.project(tf.constant(inputs[:, 0])), [tf.constant(state) for state in states])
    assert weights.multiplied | weights.read == set(weights.weights)
    assert {name for name in weights.weights if name.endswith("kernel")} == weights.multiplied


def test_order_of_gates():
    assert LSTM.GATES == ("input", "forget", "candidate", "output")
    assert GRU.GATES == ("update", "reset", "candidate")
    assert Elman.GATES == ("hidden",)
    assert LSTM.STATES == ("hidden", "cell_state")


def test_config_round_trip(cell):
    inputs, states = random_values(cell, time=1)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(cell))
    assert type(copy) is type(cell)
    assert copy.get_config() == cell.get_config()
    copy.set_weights(cell.get_weights())
    assert_close([copy(inputs[:, 0], states)[0]], [cell(inputs[:, 0], states)[0]], 0)


@pytest.mark.parametrize("name", CELLS)
def test_every_option_is_in_the_config(name):
    signatures = [inspect.signature(kind.__init__) for kind in CELLS[name].__mro__ if issubclass(kind, Cell)]
    options = {option for signature in signatures for option in signature.parameters} - {"self", "kwargs"}
    assert options <= set(CELLS[name](UNITS).get_config())


def test_options_survive_the_round_trip():
    lstm = LSTM(UNITS, forget_bias=0.25, kernel_initializer="he_normal", bias_initializer="ones")
    config = LSTM.from_config(lstm.get_config()).get_config()
    assert config["forget_bias"] == 0.25
    assert config["kernel_initializer"]["class_name"] == "HeNormal"
    assert config["bias_initializer"]["class_name"] == "Ones"


def blocks(cell: Cell) -> list[np.ndarray]:
    """The square blocks of the recurrent kernel; none if it has another shape."""
    cell.build((None, FEATURES))
    kernel = getattr(cell, "recurrent_kernel", np.zeros([0]))
    if len(kernel.shape) != 2 or kernel.shape[0] != UNITS:
        return []
    return np.split(np.asarray(kernel), kernel.shape[1] // UNITS, axis=1)


@pytest.mark.parametrize("name", CELLS)
def test_gates_start_orthogonal_and_different(name):
    if not isinstance(CELLS[name](UNITS).recurrent_initializer, keras.initializers.Orthogonal):
        pytest.skip("another start is this cell's own")
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


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("units", [0, -1])
def test_units_must_be_positive(name, units):
    with pytest.raises(ValueError, match="units must be at least 1"):
        CELLS[name](units)


@pytest.mark.parametrize("name", CELLS)
def test_unusable_inputs_are_refused(name):
    with pytest.raises(ValueError, match="last dimension"):
        CELLS[name](UNITS).build((None, None))
    layer = Recurrent(CELLS[name](UNITS))
    with pytest.raises(ValueError, match=r"expected inputs \[batch, time, features\]"):
        layer.build((None, FEATURES))
    layer.build((None, None, FEATURES))
    inputs = tf.zeros([BATCH, 2, FEATURES])
    with pytest.raises(ValueError, match=r"expected inputs \[batch, time, features\]|incompatible"):
        layer(inputs[:, 0])
    states = layer.cell.get_initial_state(BATCH)
    for unfit in ([*states, states[0]], [tf.zeros([BATCH, UNITS + 1]), *states[1:]]):
        with pytest.raises(ValueError, match=r"expected initial states of sizes|initial_state"):
            layer(inputs, initial_state=unfit)
