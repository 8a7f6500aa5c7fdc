"""Recurrent against the equations in NumPy, keras.layers.RNN and finite differences."""

from __future__ import annotations

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import CASES, ORACLES, difference_gradient, run, weights_of

from zoo.cells import CELLS, GRU, LSTM, Cell, Elman
from zoo.recurrence import Recurrent
from zoo.wrappers import Stack

BATCH, TIME, FEATURES, UNITS = 5, 4, 3, 2

MASK = np.array(
    [
        [True, True, True, True],
        [True, True, False, False],
        [False, False, True, True],
        [False, True, False, True],
        [False, False, False, False],
    ]
)
MASKS = pytest.mark.parametrize("mask", [None, MASK], ids=["unmasked", "masked"])
# Training keeps what the fast backward pass needs, in a loop of its own.
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
# Training keeps what the fast backward pass needs, in a loop of its own.
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
# Training keeps what the fast backward pass needs, in a loop of its own.
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
# Training keeps what the fast backward pass needs, in a loop of its own.
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
# Training keeps what the fast backward pass needs, in a loop of its own.
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
# Training keeps what the fast backward pass needs, in a loop of its own.
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
# Training keeps what the fast backward pass needs, in a loop of its own.
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
# Training keeps what the fast backward pass needs, in a loop of its own.
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
# Training keeps what the fast backward pass needs, in a loop of its own.
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
# Training keeps what the fast backward pass needs, in a loop of its own.
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
# Training keeps what the fast backward pass needs, in a loop of its own.
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
DIRECTIONS = pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def make(case, randomize):
    """A Recurrent of the case's cell, in double precision, with random weights."""

    def make(dtype="float64", **options) -> Recurrent:
        name, cell_options = case
        options = {"return_sequences": True, "return_state": True, **options}
        layer = Recurrent(CELLS[name](UNITS, dtype=dtype, **cell_options), dtype=dtype, **options)
        layer.build((BATCH, TIME, FEATURES))
        randomize(layer.cell)
        return layer

    return make


def in_keras(layer: Recurrent) -> keras.layers.RNN:
    """The same cell, weights included, in Keras's own time loop."""
    config = {key: value for key, value in layer.get_config().items() if key not in ("cell", "name")}
    return keras.layers.RNN(layer.cell, **config)


def in_numpy(case, layer: Recurrent, inputs, states, mask=None):
    name, options = case
    step = functools.partial(ORACLES[name], weights_of(layer.cell), **options)
    return run(step, inputs, states, mask, layer.go_backwards)


def random_values(layer: Recurrent, batch=BATCH, time=TIME):
    random = np.random.default_rng(1)
    inputs = random.normal(size=(batch, time, FEATURES))
    return inputs, [random.normal(size=(batch, size)) for size in layer.cell.state_size]


def assert_close(actual, expected, tolerance=1e-10):
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@MASKS
@DIRECTIONS
@TRAINING
def test_sequence_is_the_equations_step_by_step(case, make, mask, go_backwards, training):
    layer = make(go_backwards=go_backwards)
    inputs, states = random_values(layer)
    outputs, _, final_states = in_numpy(case, layer, inputs, states, mask)
    actual = layer(inputs, initial_state=states, mask=mask, training=training)
    assert_close(actual, [outputs, *final_states])


@MASKS
def test_states_start_at_zero(case, make, mask):
    layer = make()
    inputs, states = random_values(layer)
    outputs, _, final_states = in_numpy(case, layer, inputs, [np.zeros_like(x) for x in states], mask)
    assert_close(layer(inputs, mask=mask), [outputs, *final_states])


@MASKS
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@TRAINING
def test_compiled_is_the_equations(case, make, mask, jit_compile, training):
    layer = make("float32", go_backwards=True)
    inputs, states = random_values(layer)
    outputs, _, final_states = in_numpy(case, layer, inputs, states, mask)
    compiled = tf.function(layer, jit_compile=jit_compile)
    arguments = tf.constant(inputs, tf.float32), [tf.constant(state, tf.float32) for state in states]
    actual = compiled(arguments[0], initial_state=arguments[1], mask=mask, training=training)
    assert_close(actual, [outputs, *final_states], 1e-5)


@DIRECTIONS
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("zero_output_for_mask", [False, True])
def test_same_as_keras(make, go_backwards, return_sequences, zero_output_for_mask):
    layer = make(
        go_backwards=go_backwards,
        return_sequences=return_sequences,
        zero_output_for_mask=zero_output_for_mask,
    )
    inputs, states = random_values(layer)
    for mask in (None, MASK):
        expected = in_keras(layer)(inputs, initial_state=states, mask=mask)
        assert_close(layer(inputs, initial_state=states, mask=mask), expected)


def test_without_states_the_result_is_one_tensor(case, make):
    inputs, states = random_values(make())
    for return_sequences, index in ((True, 0), (False, 1)):
        layer = make(return_sequences=return_sequences, return_state=False)
        expected = in_numpy(case, layer, inputs, [np.zeros_like(x) for x in states])[index]
        assert_close([layer(inputs)], [expected])


def test_bidirectional(case, randomize):
    name, options = case
    cell = CELLS[name](UNITS, dtype="float64", **options)
    layer = keras.layers.Bidirectional(
        Recurrent(cell, return_sequences=True, dtype="float64"), dtype="float64"
    )
    inputs = np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES))
    layer.build(inputs.shape)
    randomize(layer)
    states = [np.zeros((BATCH, size)) for size in cell.state_size]
    forwards, _, _ = in_numpy(case, layer.forward_layer, inputs, states, MASK)
    backwards, _, _ = in_numpy(case, layer.backward_layer, inputs, states, MASK)
    assert layer.backward_layer.go_backwards
    expected = np.concatenate([forwards, backwards[:, ::-1]], axis=-1)
    # keras.layers.Bidirectional has its layers output zero at masked steps.
    assert_close([layer(inputs, mask=MASK)], [expected * MASK[..., np.newaxis]])


def test_stateful_goes_on_where_it_was(case, make):
    layer = make(stateful=True)
    inputs, states = random_values(layer)
    outputs, _, final_states = in_numpy(case, layer, inputs, [np.zeros_like(x) for x in states])
    for _ in range(2):
        first = layer(inputs[:, :1])[0]
        rest, *last_states = layer(inputs[:, 1:])
        assert_close([tf.concat([first, rest], 1), *last_states], [outputs, *final_states])
        layer.reset_state()


@DIRECTIONS
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("mode", ["eager", "graph", "dynamic graph"])
@TRAINING
def test_no_steps_pass_the_states_on(mode, training, return_sequences, go_backwards, randomize):
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


@pytest.mark.parametrize("mode", ["eager", "dynamic graph"])
@TRAINING
def test_gradient_of_no_steps(make, mode, training):
    layer = make("float32")

    def gradients(inputs, state):
        with tf.GradientTape() as tape:
            tape.watch([inputs, state])
            initial_state = [state] * len(layer.cell.state_size)
            outputs, *states = layer(inputs, initial_state=initial_state, training=training)
            loss = tf.reduce_sum(outputs) + sum(tf.reduce_sum(state) for state in states)
        sources = [inputs, state, layer.cell.recurrent_kernel.value]
        return tape.gradient(loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    if mode == "dynamic graph":
        signature = [tf.TensorSpec([None, None, FEATURES]), tf.TensorSpec([None, UNITS])]
        gradients = tf.function(gradients, input_signature=signature)
    d_inputs, d_state, d_kernel = gradients(tf.zeros([BATCH, 0, FEATURES]), tf.ones([BATCH, UNITS]))
    assert d_inputs.shape == (BATCH, 0, FEATURES)
    np.testing.assert_array_equal(d_state, np.full((BATCH, UNITS), len(layer.cell.state_size)))
    np.testing.assert_array_equal(d_kernel, np.zeros(d_kernel.shape))


@TRAINING
def test_known_shapes_stay_known(training):
    layer = Recurrent(GRU(UNITS), return_sequences=True)
    inputs = tf.TensorSpec([BATCH, TIME, FEATURES])
    concrete = tf.function(layer).get_concrete_function(inputs, training=training)
    assert concrete.structured_outputs.shape == (BATCH, TIME, UNITS)


def read_out(outputs, last_output, final_states):
    """A loss in which every output and state has a weight of its own."""
    random = np.random.default_rng(2)
    total = 0.0
    for values in (outputs, last_output, *final_states):
        total += (
            (values * random.normal(size=values.shape)).sum()
            if isinstance(values, np.ndarray)
            else (tf.reduce_sum(values * random.normal(size=values.shape)))
        )
    return total


def tape_gradients(layer, inputs, states, mask, training=True):
    inputs, states = tf.constant(inputs), [tf.constant(state) for state in states]
    weights = [weight.value for weight in layer.cell.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch([inputs, *states])
        outputs, *final_states = layer(inputs, initial_state=states, mask=mask, training=training)
        last_output = outputs[:, -1]
        loss = read_out(outputs, last_output, final_states)
    return tape.gradient(loss, [inputs, *states, *weights])


@MASKS
@DIRECTIONS
@TRAINING
def test_gradients_are_finite_differences_of_the_equations(case, make, mask, go_backwards, training):
    name, options = case
    layer = make(go_backwards=go_backwards)
    inputs, states = random_values(layer)
    weights = weights_of(layer.cell)
    step = functools.partial(ORACLES[name], weights, **options)

    def loss():
        return read_out(*run(step, inputs, states, mask, go_backwards))

    variables = [weights[weight.name] for weight in layer.cell.trainable_variables]
    expected = [difference_gradient(loss, array) for array in (inputs, *states, *variables)]
    assert_close(tape_gradients(layer, inputs, states, mask, training), expected, 1e-7)


@MASKS
def test_gradients_are_those_of_keras(make, mask):
    layer = make(go_backwards=True)
    inputs, states = random_values(layer)
    expected = tape_gradients(in_keras(layer), inputs, states, mask)
    assert_close(tape_gradients(layer, inputs, states, mask), expected)


def test_gradients_under_one_trace_of_any_shape(make):
    layer = make()
    reference = in_keras(layer)

    def gradients(layer, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs, *states = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs**2) + tf.reduce_sum(states[-1])
        return tape.gradient(loss, [inputs, *(weight.value for weight in layer.cell.trainable_variables)])

    spec = tf.TensorSpec([None, None, FEATURES], tf.float64)
    traced = tf.function(lambda inputs: gradients(layer, inputs), input_signature=[spec])
    for batch, time in ((2, 3), (5, 1), (1, 6)):
        inputs = tf.constant(random_values(layer, batch, time)[0])
        assert_close(traced(inputs), gradients(reference, inputs))


def test_compiled_gradients(make):
    layer = make("float32")
    inputs = tf.constant(random_values(layer)[0], tf.float32)

    def gradients(layer):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(layer(inputs, mask=MASK, training=True)[0] ** 2)
        return tape.gradient(loss, [inputs, *(weight.value for weight in layer.cell.trainable_variables)])

    compiled = tf.function(lambda: gradients(layer), jit_compile=True)()
    assert_close(compiled, gradients(in_keras(layer)), 1e-5)


@keras.saving.register_keras_serializable("tests")
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


@MASKS
@TRAINING
def test_any_cell_of_the_contract_has_its_gradients(mask, training, randomize):
    options = {"return_sequences": True, "return_state": True, "dtype": "float64"}
    layer = Recurrent(Awkward(3, dtype="float64"), **options)
    layer.build((BATCH, TIME, FEATURES))
    randomize(layer.cell)
    inputs, states = random_values(layer)
    reference = in_keras(layer)
    expected = reference(inputs, initial_state=states, mask=mask)
    assert_close(layer(inputs, initial_state=states, mask=mask, training=training), expected)
    expected = tape_gradients(reference, inputs, states, mask)
    assert_close(tape_gradients(layer, inputs, states, mask, training), expected)


def test_lstm_is_keras_lstm(randomize):
    layer = randomize(build(Recurrent(LSTM(UNITS), return_sequences=True)))
    reference = build(keras.layers.LSTM(UNITS, return_sequences=True))
    reference.set_weights(layer.get_weights())
    assert_same_numbers(layer, reference)


def test_gru_is_keras_gru_with_the_update_gate_negated(randomize):
    layer = randomize(build(Recurrent(GRU(UNITS), return_sequences=True)))
    reference = build(keras.layers.GRU(UNITS, reset_after=False, return_sequences=True))
    signs = np.repeat([-1.0, 1.0, 1.0], UNITS)
    reference.set_weights([weight * signs for weight in layer.get_weights()])
    assert_same_numbers(layer, reference)


def test_elman_with_tanh_is_keras_simple_rnn(randomize):
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


@TRAINING
def test_half_precision_with_states_in_single(training):
    layer = Recurrent(LSTM(UNITS, dtype="mixed_bfloat16"), return_state=True, dtype="mixed_bfloat16")
    inputs = np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES)).astype("float32")
    with tf.GradientTape() as tape:
        output, *states = layer(inputs, training=training)
        loss = tf.reduce_sum(output)
    assert output.dtype == tf.bfloat16
    assert {state.dtype for state in states} == {tf.float32}
    gradients = tape.gradient(loss, [weight.value for weight in layer.trainable_variables])
    assert all(gradient.dtype == tf.float32 for gradient in gradients)


def test_saved_functional_model_is_the_same(tmp_path, randomize):
    inputs = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(7, 3, mask_zero=True)(inputs)
    outputs = Recurrent(Elman(3), return_sequences=True)(embedded)
    outputs, *states = Stack([GRU(3), LSTM(3, forget_bias=0.5)], skip="residual", dropout=0.1)(outputs)
    outputs = keras.layers.Bidirectional(Recurrent(LSTM(2)))(outputs)
    model = keras.Model(inputs, [outputs, *states])
    randomize(model)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    ids = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 1, 2]], np.int32)
    assert_close(tf.nest.flatten(copy(ids)), tf.nest.flatten(model(ids)), 1e-6)
    assert json.dumps(copy.get_config()) == json.dumps(model.get_config())
    # The mask of the embedding reached the last layer: padding changes nothing.
    assert_close([copy(ids)[0][:1]], [copy(ids[:1, :3])[0]], 1e-5)


def test_config_round_trip(make):
    layer = make(go_backwards=True, stateful=True, zero_output_for_mask=True)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(copy) is Recurrent
    assert type(copy.cell) is type(layer.cell)
    assert copy.get_config() == layer.get_config()


def test_only_cells_of_the_zoo():
    with pytest.raises(ValueError, match=r"cells of zoo\.cells; got LSTMCell"):
        Recurrent(keras.layers.LSTMCell(3))
