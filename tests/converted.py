"""Layers of the zoo, of Keras and of PyTorch alike, for the tests of conversion."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch

from zoo.cells import CELLS
from zoo.convert import from_torch
from zoo.recurrence import Recurrent

BATCH, TIME, FEATURES, UNITS = 4, 3, 3, 5

# Cells that PyTorch has: options of the zoo's cell, PyTorch's module and its options.
TORCH = {
    "elman_tanh": ("elman", {"activation": "tanh"}, torch.nn.RNN, {}),
    "elman_relu": ("elman", {"activation": "relu"}, torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": ("lstm", {}, torch.nn.LSTM, {}),
    "projected_lstm": ("projected_lstm", {"projection": 2}, torch.nn.LSTM, {"proj_size": 2}),
    "gru_reset_after": ("gru_reset_after", {}, torch.nn.GRU, {}),
}
KERAS = {
    "elman_tanh": ("elman", {"activation": "tanh"}, keras.layers.SimpleRNN, {}),
    "elman_sigmoid": ("elman", {}, keras.layers.SimpleRNN, {"activation": "sigmoid"}),
    "lstm": ("lstm", {}, keras.layers.LSTM, {}),
    "gru": ("gru", {}, keras.layers.GRU, {"reset_after": False}),
    "gru_reset_after": ("gru_reset_after", {}, keras.layers.GRU, {}),
}
STACKS = pytest.mark.parametrize(("layers", "directions"), [(1, 1), (1, 2), (2, 1), (2, 2)])
OUTPUTS = pytest.mark.parametrize(
    ("layers", "directions", "dtype"),
    [(1, 1, "float64"), (1, 2, "float64"), (2, 1, "float64"), (2, 2, "float64"), (2, 2, "float32")],
)
TOLERANCES = {"float32": 1e-6, "float64": 1e-13, "bfloat16": 0.02}
INPUTS = np.random.default_rng(5).normal(size=(BATCH, TIME, FEATURES))


def run(layers, inputs, dtype):
    for layer in layers:
        inputs = layer(inputs.astype(dtype) if isinstance(inputs, np.ndarray) else inputs)
    return np.asarray(inputs)


def torch_module(kind, layers, directions, dtype="float32", **more):
    _, _, module, options = TORCH[kind]
    torch.manual_seed(7)
    return module(
        FEATURES,
        UNITS,
        layers,
        batch_first=True,
        bidirectional=directions == 2,
        dtype=getattr(torch, dtype),
        **options,
        **more,
    )


def torch_layers(kind, state, **options):
    nonlinearity = TORCH[kind][3].get("nonlinearity", "tanh")
    return from_torch(state, nonlinearity=nonlinearity, **options)


def torch_outputs(module, inputs, dtype):
    with torch.no_grad():
        return module(torch.from_numpy(inputs.astype(dtype)))[0].numpy()


def keras_layers(kind, layers, directions, randomize, dtype="float32", **more):
    """Layers of Keras, built, with values of their own in all weights."""
    _, _, make, options = KERAS[kind]
    made, features = [], FEATURES
    for index in range(layers):
        layer = make(UNITS, return_sequences=True, dtype=dtype, **options, **more)
        if directions == 2:
            layer = keras.layers.Bidirectional(layer, dtype=dtype)
        layer.build((None, None, features))
        made.append(randomize(layer, seed=index))
        features = UNITS * directions
    return made


def zoo_layers(cell, options, layers, directions, randomize, dtype="float32"):
    """Layers of the zoo, built, with zeros of both signs among their weights."""
    made, features = [], FEATURES
    for index in range(layers):
        layer = Recurrent(CELLS[cell](UNITS, dtype=dtype, **options), return_sequences=True, dtype=dtype)
        output_size = layer.cell.output_size
        if directions == 2:
            layer = keras.layers.Bidirectional(layer, dtype=dtype)
        layer.build((None, None, features))
        randomize(layer, seed=index)
        for weight in layer.weights:
            values = weight.numpy()
            values.flat[:2] = 0.0, -0.0
            values.flat[-2:] = -0.0, 0.0
            weight.assign(values)
        made.append(layer)
        features = output_size * directions
    return made


def arrays(layers):
    return [weight.numpy() for layer in layers for weight in layer.weights]


def assert_same_bytes(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()


def recurrent(cell, units=UNITS, features=FEATURES, options=None, **kwargs):
    layer = Recurrent(CELLS[cell](units, **(options or {})), return_sequences=True, **kwargs)
    layer.build((None, None, features))
    return layer


def both(layer, features=FEATURES, **kwargs):
    layer = keras.layers.Bidirectional(layer, **kwargs)
    layer.build((None, None, features))
    return layer
