"""Stacks of recurrences against the equations of their layers, one after another."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import CASES, ORACLES, run, weights_of

from zoo.cells import CELLS, GRU, LSTM, Elman
from zoo.wrappers import SKIPS, Stack

BATCH, TIME, FEATURES, UNITS = 3, 4, 2, 5
MASK = tf.sequence_mask([4, 2, 0], TIME).numpy()
KINDS = ["lstm", "elman", "gru"]


@pytest.fixture
def make(randomize):
    """A stack of cells of the given kinds, in double precision, with random weights."""

    def make(kinds=KINDS, units=UNITS, **options) -> Stack:
        cells = [CELLS[kind](units, dtype="float64") for kind in kinds]
        stack = Stack(cells, dtype="float64", **options)
        stack.build((BATCH, TIME, FEATURES))
        return randomize(stack)

    return make


@pytest.fixture
def inputs():
    return np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES))


def random_states(stack: Stack, batch=BATCH):
    random = np.random.default_rng(2)
    return [random.normal(size=(batch, size)) for size in stack.state_size]


def in_numpy(stack: Stack, inputs, states, kinds=KINDS, mask=None, residual=False):
    """Outputs and final states, layer by layer."""
    final_states, states = [], list(states)
    for cell, kind in zip(stack.cells, kinds, strict=True):
        own = [states.pop(0) for _ in cell.state_size]
        outputs, _, last = run(functools.partial(ORACLES[kind], weights_of(cell)), inputs, own, mask)
        inputs = inputs + outputs if residual and inputs.shape == outputs.shape else outputs
        final_states += last
    return inputs, final_states


def assert_close(actual, expected, tolerance=1e-10):
    for ours, theirs in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("mask", [None, MASK], ids=["unmasked", "masked"])
def test_layers_follow_one_another(make, inputs, skip, mask):
    stack = make(skip=skip)
    states = random_states(stack)
    expected = in_numpy(stack, inputs, states, mask=mask, residual=skip == "residual")
    assert_close(stack(inputs, initial_state=states, mask=mask), expected)


def test_residual_also_around_a_first_layer_of_the_inputs_size(make, inputs):
    stack = make(units=FEATURES, skip="residual")
    states = random_states(stack)
    assert_close(stack(inputs, initial_state=states), in_numpy(stack, inputs, states, residual=True))


def test_states_are_in_the_order_of_layers(make, inputs):
    stack = make()
    assert stack.state_size == [UNITS] * 4  # LSTM's hidden and cell state, Elman's and GRU's hidden
    assert stack.output_size == UNITS
    outputs, states = stack(inputs)
    np.testing.assert_array_equal(outputs[:, -1], states[3])
    first, _ = Stack(stack.cells[:1], dtype="float64")(inputs)
    np.testing.assert_allclose(first[:, -1], states[0], rtol=1e-12)


def test_without_states_it_starts_at_zero(make, inputs):
    stack = make()
    zeros = stack.get_initial_state(BATCH)
    assert [tuple(state.shape) for state in zeros] == [(BATCH, UNITS)] * 4
    assert not any(state.numpy().any() for state in zeros)
    assert_close(stack(inputs), in_numpy(stack, inputs, [state.numpy() for state in zeros]))


@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("prepared", [False, True], ids=["own weights", "prepared weights"])
@pytest.mark.parametrize("case", CASES)
def test_repeated_step_is_the_sequence(case, skip, prepared, inputs, randomize):
    name, options = CASES[case]
    cells = [CELLS[name](UNITS, dtype="float64", **options) for _ in range(2)]
    stack = Stack(cells, skip=skip, dtype="float64")
    stack.build((BATCH, TIME, FEATURES))
    randomize(stack)
    states = [tf.constant(state) for state in random_states(stack)]
    expected = stack(inputs, initial_state=states)
    step_weights = stack.step_weights() if prepared else None
    outputs = []
    for now in range(TIME):
        output, states = stack.step(tf.constant(inputs[:, now]), states, step_weights)
        outputs.append(output)
    assert_close((tf.stack(outputs, 1), states), expected)


def test_no_dropout_outside_training(make, inputs):
    stack = make(dropout=0.5)
    assert_close(stack(inputs, training=False), make()(inputs))
    assert_close(stack(inputs), make()(inputs))


def test_dropout_falls_on_the_inputs_of_layers_and_never_on_states(make):
    """Zeroed or scaled inputs are the only two values a one-step layer can have seen."""
    rate, batch = 0.25, 2000
    stack = make(kinds=["elman"], units=1, dropout=rate)
    inputs = np.ones((batch, 1, FEATURES))
    states = [np.full((batch, 1), 0.5)]
    outputs = stack(inputs, initial_state=states, training=True)[0].numpy().ravel()
    kept = 1 / (1 - rate)
    possible = {}
    for mask in np.ndindex(2, 2):
        seen = np.array([mask]) * kept
        hidden, _ = ORACLES["elman"](weights_of(stack.cells[0]), seen, [np.array([[0.5]])])
        possible[mask] = hidden.item()
    nearest = np.array(list(possible.values()))
    distances = np.abs(outputs[:, np.newaxis] - nearest)
    assert distances.min(axis=1).max() < 1e-12
    shares = np.bincount(distances.argmin(axis=1), minlength=4) / batch
    expected = [rate ** (2 - sum(mask)) * (1 - rate) ** sum(mask) for mask in possible]
    np.testing.assert_allclose(shares, expected, atol=0.05)  # five standard deviations of 2,000 draws


def test_dropout_does_not_touch_the_last_output(make, inputs):
    stack = make(kinds=["lstm"], dropout=0.5)
    outputs, [hidden, _] = stack(inputs, training=True)
    np.testing.assert_array_equal(outputs[:, -1], hidden)


def test_gradients_are_those_of_keras_layers(make, inputs):
    stack = make(skip="residual")
    variables = [weight.value for weight in stack.trainable_variables]

    def gradients(function):
        with tf.GradientTape() as tape:
            outputs = function(tf.constant(inputs))
            loss = tf.reduce_sum(outputs**2)
        return tape.gradient(loss, variables)

    def in_keras(values):
        for cell in stack.cells:
            outputs = keras.layers.RNN(cell, return_sequences=True, dtype="float64")(values)
            values = values + outputs if values.shape[-1] == outputs.shape[-1] else outputs
        return values

    assert_close(gradients(lambda x: stack(x, training=True)[0]), gradients(in_keras))


def test_builds_itself_when_called(inputs):
    stack = Stack([GRU(UNITS), LSTM(UNITS)])
    states = [tf.ones([BATCH, UNITS])] * 3
    outputs, final_states = stack(inputs.astype("float32"), initial_state=states, mask=MASK)
    assert outputs.shape == (BATCH, TIME, UNITS)
    assert len(final_states) == 3
    assert len(stack.trainable_variables) == 6


def test_config_round_trip(make, inputs):
    stack = make(skip="residual", dropout=0.25)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(stack))
    assert [type(cell) for cell in copy.cells] == [LSTM, Elman, GRU]
    assert copy.get_config() == stack.get_config()
    assert (copy.skip, copy.dropout) == ("residual", 0.25)
    copy(inputs)
    copy.set_weights(stack.get_weights())
    assert_close(copy(inputs), stack(inputs))


@pytest.mark.parametrize("count", [3, 5])
def test_wrong_number_of_states(make, inputs, count):
    states = [np.zeros((BATCH, UNITS))] * count
    with pytest.raises(ValueError, match=f"expected 4 states, got {count}"):
        make()(inputs, initial_state=states)
    with pytest.raises(ValueError, match=f"expected 4 states, got {count}"):
        make().step(tf.constant(inputs[:, 0]), states)


def test_unknown_skip():
    with pytest.raises(ValueError, match="skip must be one of none, residual; got 'dense'"):
        Stack([LSTM(2)], skip="dense")


def test_no_cells():
    with pytest.raises(ValueError, match="at least one cell"):
        Stack([])
