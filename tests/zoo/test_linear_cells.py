"""Cells that are linear in their state: all steps at once against one after the other."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import Case, assert_close, randomize
from oracle_cells.common import sigmoid
from oracles import CASES, ORACLES, weights_of

from zoo.cells import CELLS, MLSTM, QRNN, RGLRU, SRU, MinGRU, MinLSTM
from zoo.cells.linear import LinearCell
from zoo.recurrence import Recurrent, scan

LINEAR = [name for name, (cell, _) in CASES.items() if issubclass(CELLS[cell], LinearCell)]
# Outputs are quotients of sums that may be next to zero: these are compared in double precision only.
ILL_CONDITIONED = ("mlstm_exponential", "mlstm_normalized")
BATCH, FEATURES, UNITS = 3, 2, 4


def built(cell, features=FEATURES):
    cell.build((None, features))
    return randomize(cell)


def in_the_loop(layer, inputs, states, mask):
    """Without the layer's dispatch: step by step."""
    cell = layer.cell
    given = cell.given_weights(training=True, batch_size=len(states[0]))
    outputs, _, states = scan(
        cell, given, [tf.transpose(inputs, [1, 0, 2])], states, tf.transpose(mask), True
    )
    return [tf.transpose(outputs, [1, 0, 2]), *states]


def at_once(layer, inputs, states, mask):
    return layer(inputs, initial_state=states, mask=mask, training=True)


def values_and_gradients(run, layer, inputs, states, mask):
    with tf.GradientTape() as tape:
        tape.watch([inputs, *states])
        values = run(layer, inputs, states, mask)
        loss = sum(tf.reduce_sum(tf.sin(value)) for value in values)
    return values, tape.gradient(loss, [inputs, *states, *(v.value for v in layer.cell.trainable_variables)])


def assert_same_at_once(layer, time, tolerance):
    random = np.random.default_rng(1)
    dtype = layer.compute_dtype
    inputs = tf.constant(random.normal(size=(BATCH, time, FEATURES)), dtype)
    states = [tf.constant(random.normal(size=(BATCH, size)), dtype) for size in layer.cell.state_size]
    mask = tf.constant(random.random((BATCH, time)) < 0.7)  # with holes
    runs = [
        tf.function(values_and_gradients)(run, layer, inputs, states, mask) for run in (at_once, in_the_loop)
    ]
    for actual, expected in zip(*runs, strict=True):
        for position, (ours, theirs) in enumerate(zip(actual, expected, strict=True)):
            if ours.shape[-1]:  # a window may be empty
                error = np.abs(ours - theirs).max() / np.abs(theirs).max()
                assert error < tolerance, f"number {position}: {error}"


@pytest.mark.parametrize("name", [name for name in LINEAR if name not in ILL_CONDITIONED])
@pytest.mark.slow
def test_long_sequences_in_single_precision(name):
    layer = Recurrent(Case.named(name).cell(UNITS), return_sequences=True, return_state=True)
    layer.build((None, None, FEATURES))
    randomize(layer.cell, scale=0.5)
    assert_same_at_once(layer, 300, 2e-4)


@pytest.mark.parametrize("cell_class", [MinGRU, MinLSTM, SRU, RGLRU])
def test_coefficients_are_those_of_the_state(cell_class):
    cell = cell_class(5, dtype="float64")
    cell.build((None, 3))
    randomize(cell)
    random = np.random.default_rng(0)
    inputs, state = tf.constant(random.normal(size=(4, 3))), tf.constant(random.normal(size=(4, 5)))
    decay, increment = cell.coefficients(cell.project(inputs))
    np.testing.assert_allclose(decay * state + increment, cell(inputs, [state])[1][0], rtol=1e-12)


@pytest.mark.parametrize(("time", "forget_gate"), [(1, "sigmoid"), (3, "sigmoid"), (8, "exponential")])
def test_chunks_of_mlstm(time, forget_gate, monkeypatch):
    monkeypatch.setattr(MLSTM, "CHUNK", 3)
    cell = MLSTM(UNITS, heads=2, forget_gate=forget_gate, dtype="float64")
    layer = Recurrent(cell, return_sequences=True, return_state=True, dtype="float64")
    layer.build((None, None, FEATURES))
    randomize(layer.cell)
    assert_same_at_once(layer, time, 1e-10)


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_qrnn_is_a_convolution_and_a_pool(window, pooling):
    """Over a whole sequence, with the inputs before its start zero: equations 1 to 5 of the paper."""
    cell = built(QRNN(UNITS, window=window, pooling=pooling, dtype="float64"))
    inputs = np.random.default_rng(1).normal(size=(6, FEATURES))
    weights = weights_of(cell)
    kernels = np.split(weights["input_kernel"], window, axis=1)
    memory, expected = np.zeros(UNITS), []
    for now in range(6):
        seen = range(max(0, now - window + 1), now + 1)
        fused = weights["bias"] + sum(inputs[then] @ kernels[now - then] for then in seen)
        candidate, forget_gate, *others = np.split(fused, len(cell.GATES))
        written = sigmoid(others[1]) if pooling == "ifo" else 1 - sigmoid(forget_gate)
        memory = sigmoid(forget_gate) * memory + written * np.tanh(candidate)
        expected.append(memory if pooling == "f" else sigmoid(others[0]) * memory)
    layer = Recurrent(cell, return_sequences=True, dtype="float64")
    np.testing.assert_allclose(layer(inputs[np.newaxis])[0], expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["sru", "rg_lru"])
def test_inputs_of_the_size_of_the_state_are_passed_as_they_are(name):
    cell = built(CELLS[name](UNITS, dtype="float64"), features=UNITS)
    assert "passed_kernel" not in weights_of(cell)
    random = np.random.default_rng(1)
    inputs, state = random.normal(size=(2, BATCH, UNITS))
    output, states = cell(tf.constant(inputs), [tf.constant(state)])
    expected, expected_states = ORACLES[name](weights_of(cell), inputs, [state])
    assert_close([output, *states], [expected, *expected_states])


@pytest.mark.parametrize("cell_class", [MinGRU, MinLSTM, SRU, QRNN, RGLRU, MLSTM])
@pytest.mark.parametrize("size", [30.0, 1000.0])
def test_gates_at_their_limits(cell_class, size):
    """Saturated gates, and logarithms beyond what exp takes in single precision."""
    layer = Recurrent(cell_class(2), return_sequences=True, return_state=True)
    layer.build((None, None, 1))
    random = np.random.default_rng(1)
    for weight in layer.cell.trainable_variables:
        if weight.name != "decay_logit":
            weight.assign(random.normal(size=weight.shape) * size)
    inputs = tf.constant(random.normal(size=(2, 9, 1)), tf.float32)
    states = layer.cell.get_initial_state(2)
    values, found = values_and_gradients(at_once, layer, inputs, states, tf.ones([2, 9], tf.bool))
    assert all(np.isfinite(value).all() for value in [*values, *found])


def test_rg_lru_starts_slow():
    cell = RGLRU(1000, seed=1)
    cell.build((None, 1))
    decay = sigmoid(np.float64(cell.decay_logit)) ** 8
    np.testing.assert_allclose([decay.min(), decay.mean(), decay.max()], [0.9, 0.9495, 0.999], atol=3e-3)
    copy = RGLRU(1000, seed=1)
    copy.build((None, 1))
    np.testing.assert_array_equal(cell.decay_logit, copy.decay_logit)


def test_mlstm_starts_by_remembering():
    cell = MLSTM(8, heads=4)
    cell.build((None, 1))
    np.testing.assert_allclose(cell.gate_bias, [0, 0, 0, 0, 3, 4, 5, 6])


def test_mlstm_is_normalized_by_head():
    cell = built(MLSTM(8, heads=2, normalize=True, dtype="float64"))
    random = np.random.default_rng(1)
    inputs, *states = (random.normal(size=(BATCH, size)) for size in (FEATURES, *cell.state_size))
    output, new_states = cell(tf.constant(inputs), [tf.constant(state) for state in states])
    expected, expected_states = ORACLES["mlstm"](weights_of(cell), inputs, states, heads=2, normalize=True)
    assert_close([output, *new_states], [expected, *expected_states])


def test_zoneout_of_qrnn_keeps_memories_and_not_inputs():
    inputs, memory = tf.ones([1, FEATURES]), tf.ones([1, UNITS])
    cell = built(QRNN(UNITS, window=3))
    window = tf.ones([1, cell.state_size[1]])
    _, [new_memory, new_window] = cell(inputs, [memory, window])
    cell.zoneout = 0.25
    _, [mixed_memory, mixed_window] = cell(inputs, [memory, window])
    np.testing.assert_allclose(mixed_memory, 0.25 * memory + 0.75 * new_memory, rtol=1e-6)
    np.testing.assert_array_equal(mixed_window, new_window)


@pytest.mark.parametrize("name", sorted({CASES[name][0] for name in LINEAR}))
def test_there_is_no_recurrent_kernel_to_drop(name):
    layer = Recurrent(CELLS[name](UNITS, recurrent_dropout=0.5))
    with pytest.raises(ValueError, match="has no recurrent kernel"):
        layer(tf.zeros([1, 2, FEATURES]), training=True)


@pytest.mark.parametrize(
    ("cell_class", "options", "message"),
    [
        (QRNN, {"pooling": "max"}, "pooling must be one of f, fo, ifo; got 'max'"),
        (QRNN, {"window": 0}, "window must be at least 1"),
        (MLSTM, {"heads": 3}, "units must be a multiple of heads, got 4 and 3"),
        (MLSTM, {"forget_gate": "tanh"}, "forget_gate must be one of sigmoid, exponential; got 'tanh'"),
        (MLSTM, {"zoneout": 0.1}, "MLSTM has no zoneout"),
    ],
)
def test_unknown_options_are_refused(cell_class, options, message):
    with pytest.raises(ValueError, match=message):
        cell_class(UNITS, **options)


def test_options_survive_the_round_trip():
    for cell in (
        MinGRU(2, positive=True),
        SRU(2, activation="relu"),
        QRNN(2, window=4, pooling="ifo"),
        MLSTM(2, heads=2, forget_gate="exponential", normalize=True),
    ):
        copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(cell))
        assert copy.get_config() == cell.get_config()
        assert copy.state_size == cell.state_size
