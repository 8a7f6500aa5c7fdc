"""Layers converted from and to Keras against those of Keras, and the way there and back."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from converted import (
    BATCH,
    FEATURES,
    INPUTS,
    KERAS,
    OUTPUTS,
    STACKS,
    TIME,
    TOLERANCES,
    UNITS,
    arrays,
    assert_same_bytes,
    both,
    keras_layers,
    recurrent,
    run,
    zoo_layers,
)

from zoo.cells import CELLS
from zoo.convert import assign_weights, from_keras, to_keras
from zoo.recurrence import Recurrent
from zoo.wrappers import Bidirectional


@OUTPUTS
@pytest.mark.parametrize("kind", KERAS)
def test_layers_from_keras_give_its_outputs(kind, layers, directions, dtype, randomize):
    theirs = keras_layers(kind, layers, directions, randomize, dtype)
    converted = from_keras(theirs)
    expected = run(theirs, INPUTS, dtype)
    np.testing.assert_allclose(run(converted, INPUTS, dtype), expected, rtol=0, atol=TOLERANCES[dtype])


@OUTPUTS
@pytest.mark.parametrize("kind", KERAS)
def test_layers_to_keras_give_our_outputs(kind, layers, directions, dtype, randomize):
    cell, options, *_ = KERAS[kind]
    ours = zoo_layers(cell, options, layers, directions, randomize, dtype)
    converted = to_keras(ours)
    expected = run(ours, INPUTS, dtype)
    np.testing.assert_allclose(run(converted, INPUTS, dtype), expected, rtol=0, atol=TOLERANCES[dtype])


@STACKS
@pytest.mark.parametrize("kind", KERAS)
def test_to_keras_and_back_gives_the_same_bytes(kind, layers, directions, randomize):
    cell, options, *_ = KERAS[kind]
    ours = zoo_layers(cell, options, layers, directions, randomize)
    theirs = to_keras(ours)
    back = from_keras(theirs)
    assert_same_bytes(arrays(back), arrays(ours))
    assert_same_bytes(arrays(to_keras(back)), arrays(theirs))


@pytest.mark.parametrize("kind", KERAS)
def test_keras_to_us_and_back_gives_the_same_bytes(kind, randomize):
    theirs = keras_layers(kind, 2, 2, randomize)
    for layer in theirs if kind == "gru_reset_after" else []:
        for cell in (layer.forward_layer.cell, layer.backward_layer.cell):
            bias = cell.bias.numpy()
            bias[1, : 2 * UNITS] = 0  # what counts in the sum only
            cell.bias.assign(bias)
    assert_same_bytes(arrays(to_keras(from_keras(theirs))), arrays(theirs))


@pytest.mark.parametrize("kind", KERAS)
def test_layers_of_keras_without_biases(kind, randomize):
    theirs = keras_layers(kind, 1, 1, randomize, use_bias=False)
    expected = run(theirs, INPUTS, "float32")
    np.testing.assert_allclose(run(from_keras(theirs), INPUTS, "float32"), expected, rtol=0, atol=1e-6)


def test_a_sequential_of_keras(randomize):
    model = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True), merge_mode="ave"),
            keras.layers.GRU(4),
        ]
    )
    converted = keras.Sequential([keras.Input((None, FEATURES)), *from_keras(randomize(model))])
    expected = np.asarray(model(INPUTS))
    np.testing.assert_allclose(converted(INPUTS), expected, rtol=0, atol=1e-6)
    back = keras.Sequential([keras.Input((None, FEATURES)), *to_keras(converted)])
    np.testing.assert_allclose(back(INPUTS), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("merge", ["concat", "sum", "mean"])
def test_a_bidirectional_layer_of_the_zoo_to_keras(merge, randomize):
    ours = Bidirectional(CELLS["gru"](UNITS), merge=merge)
    ours.build(INPUTS.shape)
    randomize(ours)
    [theirs] = to_keras(ours)
    expected, _ = ours(INPUTS.astype("float32"))
    np.testing.assert_allclose(theirs(INPUTS.astype("float32")), expected, rtol=0, atol=1e-6)


OPTIONS = [
    {"return_sequences": False},
    {"return_state": True},
    {"go_backwards": True},
    {"stateful": True},
    {"zero_output_for_mask": True, "return_sequences": True},
    {"name": "encoder", "dtype": "mixed_bfloat16"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
def test_options_stay(options, randomize):
    theirs = keras.layers.LSTM(UNITS, **options)
    theirs.build((BATCH, None, FEATURES))
    randomize(theirs)
    theirs.reset_state()
    [ours] = from_keras(theirs)
    [back] = to_keras(ours)
    mask = np.arange(TIME) < np.array([[3], [2], [3], [1]])
    for _ in range(2):  # stateful layers go on
        expected = keras.tree.flatten(theirs(INPUTS, mask=mask))
        for layer in (ours, back):
            found = keras.tree.flatten(layer(INPUTS, mask=mask))
            assert [x.dtype for x in found[:1]] == [x.dtype for x in expected[:1]]
            for x, y in zip(found, expected, strict=True):
                tolerance = TOLERANCES[theirs.compute_dtype]
                np.testing.assert_allclose(np.float32(x), np.float32(y), rtol=0, atol=tolerance)
    assert ours.get_config()["name"] == back.get_config()["name"] == theirs.name


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (keras.layers.Dense(2, name="a"), r"^a: expected a SimpleRNN, LSTM or GRU, .*; got Dense$"),
        (keras.layers.LSTM(2, name="a"), r"^a has no weights yet"),
        (keras.layers.LSTM(2, activation="relu", name="a"), r"^a: .* activation='tanh' only; got 'relu'$"),
        (
            keras.layers.GRU(2, recurrent_activation="hard_sigmoid", name="a"),
            r"^a: the zoo has recurrent_activation='sigmoid' only; got 'hard_sigmoid'$",
        ),
    ],
)
def test_layers_of_keras_that_the_zoo_has_not(layer, message):
    with pytest.raises(ValueError, match=message):
        from_keras(layer)


def test_cells_that_keras_has_not():
    with pytest.raises(ValueError, match=r"^a: Keras has elman, lstm, gru, gru_reset_after; no mgu$"):
        to_keras(recurrent("mgu", name="a"))

    class Own(CELLS["lstm"]):  # whose step may be another
        pass

    layer = Recurrent(Own(UNITS), name="a")
    layer.build((None, None, FEATURES))
    with pytest.raises(ValueError, match=r"^a: Keras has .*; no Own$"):
        to_keras(layer)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda: [recurrent("lstm")], r"^expected weights of 2 recurrences, got those of 1$"),
        (lambda: both(recurrent("gru")), r"^forward_a: expected lstm with weights .*; got gru with"),
        (
            lambda: both(recurrent("lstm", features=4), 4),
            r"^forward_a: expected .*\(3, 20\).*; got .*\(4, 20\)",
        ),
    ],
)
def test_weights_that_do_not_fit(layers, message):
    target = both(recurrent("lstm", name="a"))
    before = arrays([target])
    with pytest.raises(ValueError, match=message):
        assign_weights(target, layers())
    assert_same_bytes(arrays([target]), before)
