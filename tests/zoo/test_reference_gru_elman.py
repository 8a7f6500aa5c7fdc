"""Elman networks and gated recurrent units against Keras and PyTorch, with their weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from zoo.cells import CELLS
from zoo.cells.normalization import layer_norm
from zoo.recurrence import Recurrent

BATCH, TIME, FEATURES, UNITS = 3, 5, 4, 6

# Keras, PyTorch and cuDNN have z = 1 - u = sigma(-x) where the zoo has u = sigma(x).
NEGATED = {
    "elman": np.ones(UNITS),
    "irnn": np.ones(UNITS),
    "gru": np.repeat([-1.0, 1.0, 1.0], UNITS),
    "gru_reset_after": np.repeat([-1.0, 1.0, 1.0], UNITS),
}


@pytest.fixture
def inputs():
    return np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES))


@pytest.fixture
def make(randomize):
    """A cell of this name in double precision, with random weights."""

    def make(name: str, **options) -> Recurrent:
        cell = CELLS[name](UNITS, dtype="float64", **options)
        layer = Recurrent(cell, return_sequences=True, return_state=True, dtype="float64")
        layer.build((None, None, FEATURES))
        return randomize(layer)

    return make


def their_weights(name: str, layer: Recurrent) -> tuple[np.ndarray, ...]:
    """Input kernel, recurrent kernel and both biases, in Keras's order of gates."""
    weights = {weight.name: np.asarray(weight) for weight in layer.weights}
    signs = NEGATED[name]
    second_bias = np.zeros(len(signs))
    if name == "gru_reset_after":
        # Only the candidate's second bias is inside the reset product; the gates' are added to the first.
        second_bias[-UNITS:] = weights["recurrent_bias"]
    return (
        weights["input_kernel"] * signs,
        weights["recurrent_kernel"] * signs,
        weights["bias"] * signs,
        second_bias,
    )


def values_and_gradient(layer, inputs):
    """[outputs, final state] and the gradient of their squares with respect to the inputs."""
    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values = layer(inputs, training=True)
        loss = sum(tf.reduce_sum(value**2) for value in values)
    return [*values, tape.gradient(loss, inputs)]


def in_torch(reference: torch.nn.Module, inputs):
    inputs = torch.tensor(inputs, requires_grad=True)
    outputs, state = reference(inputs)
    ((outputs**2).sum() + (state**2).sum()).backward()
    return [outputs.detach(), state[0].detach(), inputs.grad]


def assert_close(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "options", "reference_class", "reference_options"),
    [
        ("elman", {"activation": "tanh"}, keras.layers.SimpleRNN, {}),
        ("elman", {}, keras.layers.SimpleRNN, {"activation": "sigmoid"}),
        ("irnn", {}, keras.layers.SimpleRNN, {"activation": "relu"}),
        ("gru", {}, keras.layers.GRU, {"reset_after": False}),
        ("gru_reset_after", {}, keras.layers.GRU, {"reset_after": True}),
    ],
)
def test_keras(name, options, reference_class, reference_options, make, inputs):
    layer = make(name, **options)
    input_kernel, recurrent_kernel, bias, second_bias = their_weights(name, layer)
    reference = reference_class(
        UNITS, return_sequences=True, return_state=True, dtype="float64", **reference_options
    )
    reference.build(inputs.shape)
    biases = np.stack([bias, second_bias]) if name == "gru_reset_after" else bias
    reference.set_weights([input_kernel, recurrent_kernel, biases])
    assert_close(values_and_gradient(layer, inputs), values_and_gradient(reference, inputs))


@pytest.mark.parametrize(
    ("name", "options", "reference_class", "reference_options"),
    [
        ("elman", {"activation": "tanh"}, torch.nn.RNN, {}),
        ("irnn", {}, torch.nn.RNN, {"nonlinearity": "relu"}),
        ("gru_reset_after", {}, torch.nn.GRU, {}),
    ],
)
def test_torch(name, options, reference_class, reference_options, make, inputs):
    layer = make(name, **options)
    reference = reference_class(FEATURES, UNITS, batch_first=True, dtype=torch.float64, **reference_options)
    parameters = [
        reference.weight_ih_l0,
        reference.weight_hh_l0,
        reference.bias_ih_l0,
        reference.bias_hh_l0,
    ]
    with torch.no_grad():
        for parameter, weight in zip(parameters, their_weights(name, layer), strict=True):
            parameter.copy_(torch.tensor(in_torchs_order(weight).T))
    assert_close(values_and_gradient(layer, inputs), in_torch(reference, inputs))


def in_torchs_order(weight: np.ndarray) -> np.ndarray:
    """Columns of a GRU in the order reset, update, candidate; others as they are."""
    if weight.shape[-1] == UNITS:
        return weight
    update, reset, candidate = np.split(weight, 3, axis=-1)
    return np.concatenate([reset, update, candidate], axis=-1)


def test_layer_norm_is_torchs(inputs):
    expected = torch.nn.functional.layer_norm(torch.tensor(inputs), [FEATURES])
    assert_close([layer_norm(tf.constant(inputs))], [expected])
