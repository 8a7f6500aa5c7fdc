"""Both directions of time against the equations run once forwards and once backwards, and against Keras."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import ORACLES, run, weights_of

from zoo.cells import CELLS, GRU, LSTM
from zoo.named_states import MERGES
from zoo.recurrence import Recurrent
from zoo.skips import SKIPS
from zoo.wrappers import Bidirectional, Stack

BATCH, TIME, FEATURES, UNITS = 4, 5, 3, 2
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]], bool)
MERGE = {
    "concat": lambda forward, backward: np.concatenate([forward, backward], axis=-1),
    "sum": np.add,
    "mean": lambda forward, backward: (forward + backward) / 2,
}
masks = pytest.mark.parametrize("mask", [None, MASK], ids=["unmasked", "masked"])


@pytest.fixture
def inputs():
    return np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES))


@pytest.fixture
def make(randomize):
    def make(kind="lstm", **options) -> Bidirectional:
        layer = Bidirectional(CELLS[kind](UNITS, dtype="float64"), dtype="float64", **options)
        layer.build((BATCH, TIME, FEATURES))
        return randomize(layer)

    return make


def random_states(layer):
    random = np.random.default_rng(2)
    return {name: random.normal(size=(BATCH, size)) for name, size in layer.state_size.items()}


def in_numpy(layer, kind, inputs, states, mask=None, place=""):
    """Outputs of both directions, merged, and final states."""
    outputs, final_states = [], {}
    for direction in ("forward", "backward"):
        cell = layer.recurrents[place + direction].cell
        names = [f"{place}{direction}/{state}" for state in cell.STATES]
        step = functools.partial(ORACLES[kind], weights_of(cell))
        backwards = direction == "backward"
        values, _, last = run(step, inputs, [states[name] for name in names], mask, backwards)
        outputs.append(values[:, ::-1] if backwards else values)
        final_states |= dict(zip(names, last, strict=True))
    return MERGE[layer.merge](*outputs), final_states


def assert_close(actual, expected, tolerance=1e-10):
    np.testing.assert_allclose(actual[0], expected[0], rtol=tolerance, atol=tolerance)
    assert actual[1].keys() == expected[1].keys()
    for name, state in expected[1].items():
        np.testing.assert_allclose(actual[1][name], state, rtol=tolerance, atol=tolerance, err_msg=name)


@masks
@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_both_directions_are_the_equations(make, inputs, kind, merge, mask, training):
    layer = make(kind, merge=merge)
    states = random_states(layer)
    expected = in_numpy(layer, kind, inputs, states, mask)
    assert_close(layer(inputs, initial_state=states, mask=mask, training=training), expected)
    assert layer.output_size == expected[0].shape[-1]


def test_names_of_states(make, inputs):
    layer = make()
    assert layer.state_size == {
        **{"forward/hidden": UNITS, "forward/cell_state": UNITS},
        **{"backward/hidden": UNITS, "backward/cell_state": UNITS},
    }
    outputs, states = layer(inputs)
    np.testing.assert_array_equal(outputs[:, -1, :UNITS], states["forward/hidden"])
    np.testing.assert_array_equal(outputs[:, 0, UNITS:], states["backward/hidden"])
    assert_close((outputs, states), layer(inputs, initial_state=layer.get_initial_state(BATCH)))


@pytest.mark.parametrize(("merge", "merge_mode"), [("concat", "concat"), ("sum", "sum"), ("mean", "ave")])
def test_same_as_keras(make, inputs, merge, merge_mode):
    layer = make(merge=merge)
    reference = keras.layers.Bidirectional(
        keras.layers.LSTM(UNITS, return_sequences=True, dtype="float64"), merge_mode, dtype="float64"
    )
    reference.build(inputs.shape)
    reference.set_weights(layer.get_weights())
    np.testing.assert_allclose(layer(inputs)[0], reference(inputs), rtol=1e-10, atol=1e-12)


def test_padding_on_either_side_changes_nothing(make, inputs):
    layer = make()
    outputs, states = layer(inputs)
    nonsense = np.full((BATCH, 2, FEATURES), 9.0)
    mask = np.array([[True] * TIME + [False] * 2] * BATCH)
    right = layer(np.concatenate([inputs, nonsense], 1), mask=mask)
    left = layer(np.concatenate([nonsense, inputs], 1), mask=mask[:, ::-1])
    assert_close((right[0][:, :TIME], right[1]), (outputs, states), 1e-12)
    assert_close((left[0][:, 2:], left[1]), (outputs, states), 1e-12)


@masks
@pytest.mark.parametrize("skip", SKIPS)
def test_stack_of_bidirectional_layers(inputs, randomize, mask, skip):
    kinds = ["gru", "lstm"]
    cells = [CELLS[kind](UNITS, dtype="float64") for kind in kinds]
    stack = Stack(cells, skip, bidirectional=True, dtype="float64")
    stack.build(inputs.shape)
    randomize(stack)
    states = random_states(stack)
    assert list(stack.state_size)[:3] == [
        *("layer_0/forward/hidden", "layer_0/backward/hidden", "layer_1/forward/hidden")
    ]
    values, final_states = inputs, {}
    for index, (kind, connection) in enumerate(zip(kinds, stack.skips, strict=True)):
        outputs, last = in_numpy(stack, kind, values, states, mask, f"layer_{index}/")
        values = connection(tf.constant(values), tf.constant(outputs)).numpy()
        final_states |= last
    assert_close(stack(inputs, initial_state=states, mask=mask), (values, final_states))
    assert stack.output_size == values.shape[-1]


def test_gradients_are_those_of_keras(make, inputs):
    layer = make()
    backward = layer.recurrents["backward"].cell

    def in_keras(values):
        options = {"return_sequences": True, "dtype": "float64"}
        forwards = keras.layers.RNN(layer.cell, **options)(values)
        backwards = keras.layers.RNN(backward, go_backwards=True, **options)(values)
        return tf.concat([forwards, backwards[:, ::-1]], axis=-1)

    def gradients(function):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(function(tf.constant(inputs)) ** 2)
        return tape.gradient(loss, [weight.value for weight in layer.trainable_variables])

    ours, theirs = gradients(lambda x: layer(x, training=True)[0]), gradients(in_keras)
    assert len(ours) == 6
    for gradient, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", [None, 3])
def test_the_directions_start_apart(seed):
    start = keras.initializers.RandomNormal(seed=seed)
    cell = GRU(UNITS, recurrent_initializer=start, recurrent_dropout=0.5, seed=seed)
    layer = Bidirectional(cell)
    layer.build((None, None, FEATURES))
    weights = layer.get_weights()
    forward, backward = weights[1], weights[4]
    blocks = [*np.split(forward, 3, axis=1), *np.split(backward, 3, axis=1)]
    assert len({block.tobytes() for block in blocks}) == 6
    if seed is not None:
        assert layer.recurrents["backward"].cell.seed != seed
    forward_masks, backward_masks = (
        recurrent.cell.given_weights(training=True, batch_size=20).masks
        for recurrent in layer.recurrents.values()
    )
    assert all((forward_masks[name] != backward_masks[name]).numpy().any() for name in forward_masks)


@pytest.mark.parametrize("merge", MERGES)
def test_config_round_trip(make, inputs, merge):
    layer = make(merge=merge)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()
    copy(inputs)
    copy.set_weights(layer.get_weights())
    assert_close(copy(inputs), layer(inputs), 0)


def test_saved_model_is_the_same(tmp_path, randomize):
    ids = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(7, FEATURES, mask_zero=True)(ids)
    stack = Stack([LSTM(3), GRU(3)], "residual", bidirectional=True, merge="mean")
    outputs, states = stack(embedded)
    outputs, more_states = Bidirectional(GRU(UNITS), merge="sum")(outputs)
    summary = Recurrent(LSTM(UNITS))(outputs)
    model = randomize(keras.Model(ids, [outputs, states, more_states, summary]))
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    some = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 1, 2]], np.int32)
    for ours, theirs in zip(tf.nest.flatten(copy(some)), tf.nest.flatten(model(some)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # The embedding's mask has reached the last layer: padding changes nothing.
    np.testing.assert_allclose(model(some)[-1][:1], model(some[:1, :3])[-1], rtol=1e-5, atol=1e-6)


def test_wrong_states(make, inputs):
    layer = make()
    states = random_states(layer)
    with pytest.raises(ValueError, match="missing states backward/cell_state, backward/hidden; it has forw"):
        layer(inputs, initial_state={name: x for name, x in states.items() if name.startswith("forward")})
    with pytest.raises(ValueError, match="unknown states hidden"):
        layer(inputs, initial_state={**states, "hidden": states["forward/hidden"]})
    with pytest.raises(ValueError, match=r"backward/hidden as \[batch, 2\], got \[4, 3\]"):
        layer(inputs, initial_state={**states, "backward/hidden": np.zeros((BATCH, 3))})


def test_unknown_merge():
    for make in (lambda: Bidirectional(LSTM(2), merge="mul"), lambda: Stack([LSTM(2)], merge="mul")):
        with pytest.raises(ValueError, match="merge must be one of concat, sum, mean; got 'mul'"):
            make()


def test_no_single_steps():
    stack = Stack([LSTM(2)], bidirectional=True)
    stack.build((None, None, FEATURES))
    with pytest.raises(ValueError, match="whole sequences, not single steps"):
        stack.step(tf.zeros([1, FEATURES]), stack.get_initial_state(1))
