"""Stacks of recurrences against the equations of their layers, one after another."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import ORACLES, run, sigmoid, weights_of

from zoo.cells import CELLS, GRU, LSTM, Elman
from zoo.skips import SKIPS
from zoo.wrappers import Stack

BATCH, TIME, FEATURES, UNITS = 3, 4, 2, 5
MASK = tf.sequence_mask([4, 2, 0], TIME).numpy()
KINDS = ["lstm", "elman", "gru"]
SIZES = {"unequal": [5, 3, 3], "equal": [FEATURES] * 3}


@pytest.fixture
def make(randomize):
    """A stack of cells of the given kinds, in double precision, with random weights."""

    def make(kinds=KINDS, sizes=(UNITS, UNITS, UNITS), **options) -> Stack:
        cells = [CELLS[kind](units, dtype="float64") for kind, units in zip(kinds, sizes, strict=False)]
        stack = Stack(cells, dtype="float64", **options)
        stack.build((BATCH, TIME, FEATURES))
        return randomize(stack)

    return make


@pytest.fixture
def inputs():
    return np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES))


def random_states(stack: Stack, batch=BATCH):
    random = np.random.default_rng(2)
    return {name: random.normal(size=(batch, size)) for name, size in stack.state_size.items()}


def skipped(stack: Stack, index: int, inputs, outputs):
    """The connection around one layer, from the papers."""
    if stack.skip == "dense":
        return np.concatenate([inputs, outputs], axis=-1)
    if stack.skip == "none" or inputs.shape != outputs.shape:
        return outputs
    if stack.skip == "residual":
        return inputs + outputs
    kernel, bias = stack.skips[index].transform_gate.get_weights()
    transform = sigmoid(inputs @ kernel + bias)
    return outputs * transform + inputs * (1 - transform)


def in_numpy(stack: Stack, inputs, states, kinds=KINDS, mask=None):
    """Outputs and final states, layer by layer."""
    final_states = {}
    for index, (cell, kind) in enumerate(zip(stack.cells, kinds, strict=True)):
        names = [f"layer_{index}/{state}" for state in cell.STATES]
        step = functools.partial(ORACLES[kind], weights_of(cell))
        outputs, _, last = run(step, inputs, [states[name] for name in names], mask)
        inputs = skipped(stack, index, inputs, outputs)
        final_states |= dict(zip(names, last, strict=True))
    return inputs, final_states


def assert_close(actual, expected, tolerance=1e-10):
    """Of (outputs, states by name)."""
    np.testing.assert_allclose(actual[0], expected[0], rtol=tolerance, atol=tolerance)
    assert actual[1].keys() == expected[1].keys()
    for name, state in expected[1].items():
        np.testing.assert_allclose(actual[1][name], state, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("mask", [None, MASK], ids=["unmasked", "masked"])
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_layers_follow_one_another(make, inputs, skip, sizes, mask, training):
    stack = make(skip=skip, sizes=SIZES[sizes])
    states = random_states(stack)
    expected = in_numpy(stack, inputs, states, mask=mask)
    assert_close(stack(inputs, initial_state=states, mask=mask, training=training), expected)
    assert stack.output_size == expected[0].shape[-1]


def test_dense_gives_the_inputs_and_all_outputs(make, inputs):
    stack = make(skip="dense")
    outputs, _ = stack(inputs)
    assert stack.output_size == FEATURES + 3 * UNITS
    np.testing.assert_array_equal(outputs[..., :FEATURES], inputs)
    assert [cell.input_kernel.shape[0] for cell in stack.cells] == [FEATURES + n * UNITS for n in range(3)]
    first, _ = Stack(stack.cells[:1], dtype="float64")(inputs)
    np.testing.assert_allclose(outputs[..., FEATURES : FEATURES + UNITS], first, rtol=1e-12)


def test_highway_starts_by_passing_most_of_its_input_on(inputs):
    stack = Stack([LSTM(FEATURES)], skip="highway")
    stack.build((None, None, FEATURES))
    kernel, bias = stack.skips[0].transform_gate.get_weights()
    assert kernel.shape == (FEATURES, FEATURES)
    np.testing.assert_array_equal(bias, [-1.0] * FEATURES)
    assert len(stack.trainable_variables) == 3 + 2


def test_states_have_the_names_of_layers_and_states(make, inputs):
    stack = make(sizes=(2, 3, 4))
    names = ["layer_0/hidden", "layer_0/cell_state", "layer_1/hidden", "layer_2/hidden"]
    assert list(stack.state_size) == names
    assert list(stack.state_size.values()) == [2, 2, 3, 4]
    outputs, states = stack(inputs)
    np.testing.assert_array_equal(outputs[:, -1], states["layer_2/hidden"])
    first, _ = Stack(stack.cells[:1], dtype="float64")(inputs)
    np.testing.assert_allclose(first[:, -1], states["layer_0/hidden"], rtol=1e-12)


def test_without_states_it_starts_at_zero(make, inputs):
    stack = make()
    zeros = stack.get_initial_state(BATCH)
    assert {tuple(state.shape) for state in zeros.values()} == {(BATCH, UNITS)}
    assert not any(state.numpy().any() for state in zeros.values())
    assert_close(stack(inputs), in_numpy(stack, inputs, {name: x.numpy() for name, x in zeros.items()}))


@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("prepared", [False, True], ids=["own weights", "prepared weights"])
@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_repeated_step_is_the_sequence(skip, prepared, dtype, inputs, randomize):
    cells = [CELLS[kind](FEATURES, dtype=dtype, zoneout=0.3) for kind in KINDS]
    stack = Stack(cells, skip=skip, dtype=dtype)
    stack.build((BATCH, TIME, FEATURES))
    randomize(stack)
    initial = stack.get_initial_state(BATCH)
    states = {name: tf.cast(x, initial[name].dtype) for name, x in random_states(stack).items()}
    inputs = tf.constant(inputs, stack.compute_dtype)
    expected = stack(inputs, initial_state=states)
    assert {state.dtype for state in expected[1].values()} == {x.dtype for x in initial.values()}
    step_weights = stack.step_weights() if prepared else None
    outputs = []
    for now in range(TIME):
        output, states = stack.step(inputs[:, now], states, step_weights)
        outputs.append(output)
    assert outputs[0].dtype == expected[0].dtype
    as_floats = [(tf.cast(out, tf.float64), new) for out, new in ((tf.stack(outputs, 1), states), expected)]
    assert_close(*as_floats, 1e-10 if dtype == "float64" else 2e-2)


def test_no_dropout_outside_training(make, inputs):
    for locked in (False, True):
        stack = make(dropout=0.5, locked_dropout=locked)
        assert_close(stack(inputs, training=False), make()(inputs))
        assert_close(stack(inputs), make()(inputs))


def seen_inputs(stack: Stack, inputs, states, outputs) -> np.ndarray:
    """Which of its two inputs a stack of one Elman unit has seen, by what it put out: bool [batch, 2].

    Zeroed and scaled inputs are the only two values that it can have seen.
    """
    kept = 1 / (1 - stack.dropout)
    masks = list(np.ndindex(2, 2))
    possible = []
    for mask in masks:
        hidden, _ = ORACLES["elman"](weights_of(stack.cells[0]), inputs * np.array(mask) * kept, [states])
        possible.append(hidden[:, 0])
    distances = np.abs(outputs[:, np.newaxis] - np.stack(possible, axis=1))
    assert distances.min(axis=1).max() < 1e-12
    return np.array(masks)[distances.argmin(axis=1)].astype(bool)


@pytest.mark.parametrize("locked", [False, True], ids=["elementwise", "locked"])
def test_dropout_falls_on_the_inputs_of_layers_and_never_on_states(make, locked):
    rate, batch, time = 0.25, 1000, 3
    stack = make(kinds=["elman"], sizes=[1], dropout=rate, locked_dropout=locked)
    inputs = np.ones((batch, time, FEATURES))
    state = np.full((batch, 1), 0.5)
    outputs, _ = stack(inputs, initial_state={"layer_0/hidden": state}, training=True)
    before = np.concatenate([state[:, np.newaxis], outputs], axis=1)
    seen = np.stack(
        [seen_inputs(stack, inputs[:, t], before[:, t], outputs[:, t, 0].numpy()) for t in range(time)], 1
    )
    shares = [np.mean((seen == mask).all(axis=-1)) for mask in np.ndindex(2, 2)]
    expected = [rate ** (2 - sum(mask)) * (1 - rate) ** sum(mask) for mask in np.ndindex(2, 2)]
    np.testing.assert_allclose(shares, expected, atol=0.07)  # 4.5 standard deviations of 1,000 draws
    varies = (seen != seen[:, :1]).any()
    assert varies != locked


def test_dropout_does_not_touch_the_last_output(make, inputs):
    stack = make(kinds=["lstm"], dropout=0.5)
    outputs, states = stack(inputs, training=True)
    np.testing.assert_array_equal(outputs[:, -1], states["layer_0/hidden"])


@pytest.mark.parametrize("skip", SKIPS)
def test_gradients_are_those_of_keras_layers(make, inputs, skip):
    stack = make(sizes=[FEATURES, FEATURES, UNITS], skip=skip)
    variables = [weight.value for weight in stack.trainable_variables]

    def gradients(function):
        with tf.GradientTape() as tape:
            outputs = function(tf.constant(inputs))
            loss = tf.reduce_sum(outputs**2)
        return tape.gradient(loss, variables)

    def in_keras(values):
        for cell, connection in zip(stack.cells, stack.skips, strict=True):
            outputs = keras.layers.RNN(cell, return_sequences=True, dtype="float64")(values)
            if skip == "dense":
                outputs = keras.layers.Concatenate(dtype="float64")([values, outputs])
            elif skip == "residual" and values.shape[-1] == outputs.shape[-1]:
                outputs = values + outputs
            elif skip == "highway" and values.shape[-1] == outputs.shape[-1]:
                transform = connection.transform_gate(values)
                outputs = transform * outputs + (1 - transform) * values
            values = outputs
        return values

    ours, theirs = gradients(lambda x: stack(x, training=True)[0]), gradients(in_keras)
    for gradient, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-10)


def test_builds_itself_when_called(inputs):
    stack = Stack([GRU(UNITS), LSTM(UNITS)], skip="dense")
    states = {name: tf.ones([BATCH, size]) for name, size in stack.state_size.items()}
    outputs, final_states = stack(inputs.astype("float32"), initial_state=states, mask=MASK)
    assert outputs.shape == (BATCH, TIME, FEATURES + 2 * UNITS)
    assert final_states.keys() == states.keys()
    assert len(stack.trainable_variables) == 6


def test_half_precision_keeps_states_in_single(inputs):
    stack = Stack([LSTM(UNITS, dtype="mixed_bfloat16")], skip="highway", dtype="mixed_bfloat16")
    outputs, states = stack(tf.constant(inputs, tf.float32))
    assert outputs.dtype == tf.bfloat16
    assert {state.dtype for state in states.values()} == {tf.float32}


@pytest.mark.parametrize("skip", SKIPS)
def test_config_round_trip(make, inputs, skip):
    stack = make(sizes=SIZES["equal"], skip=skip, dropout=0.25, locked_dropout=True)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(stack))
    assert [type(cell) for cell in copy.cells] == [LSTM, Elman, GRU]
    assert copy.get_config() == stack.get_config()
    assert (copy.skip, copy.dropout, copy.locked_dropout) == (skip, 0.25, True)
    copy(inputs)
    copy.set_weights(stack.get_weights())
    assert_close(copy(inputs), stack(inputs))


@pytest.mark.parametrize("skip", SKIPS)
def test_saved_model_is_the_same(tmp_path, randomize, skip):
    ids = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(7, FEATURES, mask_zero=True)(ids)
    stack = Stack([LSTM(FEATURES), GRU(FEATURES)], skip=skip, dropout=0.1)
    outputs, states = stack(embedded)
    model = randomize(keras.Model(ids, [outputs, states]))
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    some = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 1, 2]], np.int32)
    assert_close(copy(some), model(some), 0)
    # The embedding's mask has reached the stack: padding changes nothing.
    alone = model(some[:1, :3])
    for name, state in alone[1].items():
        np.testing.assert_allclose(model(some)[1][name][:1], state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_1/hidden": None}, r"missing states layer_1/hidden; it has layer_0/hidden, layer_0/cell_st"),
        ({"layer_3/hidden": np.zeros((BATCH, UNITS))}, "unknown states layer_3/hidden; it has layer_0/hid"),
        ({"layer_1/hidden": np.zeros((BATCH, 4))}, r"the state layer_1/hidden as \[batch, 5\], got \[3, 4\]"),
        ({"layer_2/hidden": np.zeros(UNITS)}, r"the state layer_2/hidden as \[batch, 5\], got \[5\]"),
    ],
)
def test_wrong_states(make, inputs, change, message):
    stack = make()
    states = {name: x for name, x in {**random_states(stack), **change}.items() if x is not None}
    with pytest.raises(ValueError, match=message):
        stack(inputs, initial_state=states)
    with pytest.raises(ValueError, match=message):
        stack.step(tf.constant(inputs[:, 0]), states)


def test_states_in_a_list(make, inputs):
    with pytest.raises(ValueError, match="expected a dict of states by name, got a list"):
        make()(inputs, initial_state=[np.zeros((BATCH, UNITS))] * 4)


def test_unknown_skip():
    with pytest.raises(ValueError, match="skip must be one of none, residual, dense, highway; got 'skip'"):
        Stack([LSTM(2)], skip="skip")


def test_no_cells():
    with pytest.raises(ValueError, match="at least one cell"):
        Stack([])
