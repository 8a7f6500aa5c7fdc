"""What Recurrent does around any cell, against NumPy, keras.layers.RNN and Keras's own layers."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import (
    BATCH,
    FEATURES,
    MASK,
    TIME,
    UNITS,
    Case,
    assert_close,
    in_keras,
    random_values,
    randomize,
    zero_states,
)

from zoo.cells import GRU, LSTM, Cell, Elman
from zoo.cells.base import long_product
from zoo.recurrence import Recurrent
from zoo.wrappers import Stack

DIRECTIONS = pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
# Training keeps what the fast backward pass needs, in a loop of its own.
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
# One state, two states, and a product that waits for another.
FEW_NAMES = ("elman", "lstm", "gru")
FEW = pytest.mark.parametrize("case", [Case.named(name) for name in FEW_NAMES], ids=FEW_NAMES)


@FEW
@DIRECTIONS
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("zero_output_for_mask", [False, True])
def test_options_are_those_of_keras(case, zero_output_for_mask, return_sequences, go_backwards):
    layer = case.layer(
        zero_output_for_mask=zero_output_for_mask,
        return_sequences=return_sequences,
        go_backwards=go_backwards,
    )
    inputs, states = random_values(layer.cell)
    for mask in (None, MASK):
        expected = in_keras(layer)(inputs, initial_state=states, mask=mask)
        assert_close(layer(inputs, initial_state=states, mask=mask), expected)


@FEW
def test_without_states_the_result_is_one_tensor(case):
    for return_sequences in (True, False):
        layer = case.layer(return_sequences=return_sequences, return_state=False)
        inputs, _ = random_values(layer.cell)
        outputs = case.in_numpy(layer, inputs, zero_states(layer.cell))[0]
        assert_close([layer(inputs)], [outputs if return_sequences else outputs[:, -1]])


def test_bidirectional(case):
    layer = keras.layers.Bidirectional(case.layer(return_state=False), dtype="float64")
    inputs, states = random_values(layer.forward_layer.cell)
    layer.build(inputs.shape)
    randomize(layer)
    assert layer.backward_layer.go_backwards
    forwards, backwards = (
        case.in_numpy(direction, inputs, [np.zeros_like(state) for state in states], MASK)[0]
        for direction in (layer.forward_layer, layer.backward_layer)
    )
    expected = np.concatenate([forwards, backwards[:, ::-1]], axis=-1)
    # keras.layers.Bidirectional has its layers output zero at masked steps.
    assert_close([layer(inputs, mask=MASK)], [expected * MASK[..., np.newaxis]])


@FEW
def test_stateful_goes_on_where_it_was(case):
    layer = Recurrent(
        case.layer().cell, return_sequences=True, return_state=True, stateful=True, dtype="float64"
    )
    layer.build((BATCH, None, FEATURES))
    inputs, _ = random_values(layer.cell)
    expected = case.in_numpy(layer, inputs, zero_states(layer.cell))
    for _ in range(2):
        first = layer(inputs[:, :1])[0]
        rest, *last_states = layer(inputs[:, 1:])
        assert_close([tf.concat([first, rest], 1), *last_states], expected)
        layer.reset_state()


@DIRECTIONS
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("mode", ["eager", "graph", "dynamic graph"])
@TRAINING
def test_no_steps_pass_the_states_on(mode, training, return_sequences, go_backwards):
    layer = Recurrent(
        LSTM(UNITS), go_backwards=go_backwards, return_sequences=return_sequences, return_state=True
    )
    layer.build((None, None, FEATURES))
    states = [tf.ones([BATCH, UNITS]), 2 * tf.ones([BATCH, UNITS])]
    spec = tf.TensorSpec([None, None, FEATURES])

    def eager(inputs):
        return layer(inputs, initial_state=states, training=training)

    dynamic = tf.function(eager, input_signature=[spec])
    call = {"eager": eager, "graph": tf.function(eager), "dynamic graph": dynamic}[mode]
    for zero_output_for_mask in (False, True):
        layer.zero_output_for_mask = zero_output_for_mask
        outputs, *final_states = call(tf.zeros([BATCH, 0, FEATURES]))
        empty = np.zeros((BATCH, 0, UNITS) if return_sequences else (BATCH, UNITS))
        assert_close([outputs, *final_states], [empty, *states])


@TRAINING
def test_known_shapes_stay_known(training):
    layer = Recurrent(GRU(UNITS), return_sequences=True)
    inputs = tf.TensorSpec([BATCH, TIME, FEATURES])
    concrete = tf.function(layer).get_concrete_function(inputs, training=training)
    assert concrete.structured_outputs.shape == (BATCH, TIME, UNITS)


def test_lstm_is_keras_lstm():
    layer = randomize(build(Recurrent(LSTM(UNITS), return_sequences=True)))
    reference = build(keras.layers.LSTM(UNITS, return_sequences=True))
    reference.set_weights(layer.get_weights())
    assert_same_numbers(layer, reference)


def test_gru_is_keras_gru_with_the_update_gate_negated():
    layer = randomize(build(Recurrent(GRU(UNITS), return_sequences=True)))
    reference = build(keras.layers.GRU(UNITS, reset_after=False, return_sequences=True))
    signs = np.repeat([-1.0, 1.0, 1.0], UNITS)
    reference.set_weights([weight * signs for weight in layer.get_weights()])
    assert_same_numbers(layer, reference)


def test_elman_with_tanh_is_keras_simple_rnn():
    layer = randomize(build(Recurrent(Elman(UNITS, activation="tanh"), return_sequences=True)))
    reference = build(keras.layers.SimpleRNN(UNITS, return_sequences=True))
    reference.set_weights(layer.get_weights())
    assert_same_numbers(layer, reference)


def build(layer):
    layer.build((None, None, FEATURES))
    return layer


def assert_same_numbers(layer, reference):
    inputs = np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES)).astype("float32")
    # keras.layers.LSTM and GRU refuse masks with holes on some devices: padding on the right only.
    right_padded = tf.sequence_mask([4, 3, 2, 1, 4], TIME)
    assert_close([layer(inputs)], [reference(inputs)], 1e-5)
    assert_close([layer(inputs, mask=right_padded)], [reference(inputs, mask=right_padded)], 1e-5)


@keras.saving.register_keras_serializable("tests")
@pytest.mark.parametrize("columns", [2048, 2050])
@pytest.mark.parametrize("transpose_a", [False, True])
def test_long_product_of_any_row_length(columns, transpose_a):
    random = np.random.default_rng(0)
    left, right = random.standard_normal((4, 4)), random.standard_normal((4, columns))
    d_product = random.standard_normal((4, columns))
    with tf.GradientTape() as tape:
        operands = [tf.constant(left, tf.float32), tf.constant(right, tf.float32)]
        tape.watch(operands)
        product = long_product(*operands, transpose_a=transpose_a)
    d_left, d_right = tape.gradient(product, operands, tf.constant(d_product, tf.float32))
    factor = left.T if transpose_a else left
    d_factor = d_product @ right.T
    d_factor = d_factor.T if transpose_a else d_factor
    assert_close([product, d_left, d_right], [factor @ right, d_factor, factor.T @ d_product], 1e-4)


class Awkward(Cell):
    """Uses a kernel twice in a step, a weight outside products, and gives an output of its own size."""

    STATES = ("hidden", "memory")

    @property
    def output_size(self):
        return self.units - 1

    def build(self, input_shape):
        super().build(input_shape)
        self.peephole = self.add_weight(name="peephole", shape=(self.units,))

    def step_weights(self):
        return {**super().step_weights(), "peephole": tf.convert_to_tensor(self.peephole)}

    def step(self, projected, states):
        hidden, memory = states
        gate = tf.tanh(self.product(memory, "recurrent_kernel") + self.weight("peephole") * hidden)
        hidden = tf.tanh(projected + self.product(gate * hidden, "recurrent_kernel"))
        memory = memory * self.weight("peephole") + hidden
        return hidden[:, 1:] * gate[:, :-1], [hidden, memory]


@pytest.mark.parametrize("mask", [None, MASK], ids=["unmasked", "masked"])
@TRAINING
def test_any_cell_of_the_contract_has_its_gradients(mask, training):
    options = {"return_sequences": True, "return_state": True, "dtype": "float64"}
    layer = Recurrent(Awkward(3, dtype="float64"), **options)
    layer.build((BATCH, TIME, FEATURES))
    randomize(layer.cell)
    inputs, states = (tf.nest.map_structure(tf.constant, values) for values in random_values(layer.cell))

    def results_and_gradients(layer):
        sources = [inputs, *states, *(weight.value for weight in layer.trainable_variables)]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            results = layer(inputs, initial_state=states, mask=mask, training=training)
            loss = sum(tf.reduce_sum(tf.sin(value)) for value in results)
        return [*results, *tape.gradient(loss, sources)]

    assert_close(results_and_gradients(layer), results_and_gradients(in_keras(layer)))


def test_saved_functional_model_is_the_same(tmp_path):
    inputs = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(7, 3, mask_zero=True)(inputs)
    outputs = Recurrent(Elman(3), return_sequences=True)(embedded)
    outputs, states = Stack([GRU(3), LSTM(3, forget_bias=0.5)], skip="residual", dropout=0.1)(outputs)
    outputs = keras.layers.Bidirectional(Recurrent(LSTM(2)))(outputs)
    model = keras.Model(inputs, [outputs, states])
    randomize(model)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    ids = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 1, 2]], np.int32)
    assert_close(tf.nest.flatten(copy(ids)), tf.nest.flatten(model(ids)), 1e-6)
    assert json.dumps(copy.get_config()) == json.dumps(model.get_config())
    # The mask of the embedding reached the last layer: padding changes nothing.
    assert_close([copy(ids)[0][:1]], [copy(ids[:1, :3])[0]], 1e-5)


@FEW
def test_config_round_trip(case):
    layer = Recurrent(case.cell(), go_backwards=True, stateful=True, zero_output_for_mask=True)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(copy) is Recurrent
    assert type(copy.cell) is type(layer.cell)
    assert copy.get_config() == layer.get_config()


def test_only_cells_of_the_zoo():
    with pytest.raises(ValueError, match=r"cells of zoo\.cells; got LSTMCell"):
        Recurrent(keras.layers.LSTMCell(3))
