"""LSTM and its projected variant against Keras and PyTorch, with their weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from zoo.cells import LSTM, ProjectedLSTM
from zoo.recurrence import Recurrent

BATCH, TIME, FEATURES, UNITS, PROJECTION = 3, 5, 4, 6, 2


@pytest.fixture
def inputs():
    return np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES))


@pytest.fixture
def layer(request, randomize):
    """The cell class and options that the test is given, run in double precision, with random weights."""
    cell_class, options = request.param
    cell = cell_class(UNITS, dtype="float64", **options)
    layer = Recurrent(cell, return_sequences=True, return_state=True, dtype="float64")
    layer.build((None, None, FEATURES))
    return randomize(layer)


LSTM_LAYER = pytest.mark.parametrize("layer", [(LSTM, {})], ids=["lstm"], indirect=True)
PROJECTED_LAYER = pytest.mark.parametrize(
    "layer", [(ProjectedLSTM, {"projection": PROJECTION})], ids=["projected_lstm"], indirect=True
)


def outputs_and_gradients(layer, inputs):
    """[outputs, *final states] and the gradients of their squares with respect to inputs and weights."""
    inputs = tf.constant(inputs)
    weights = [weight.value for weight in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values = layer(inputs, training=True)
        loss = sum(tf.reduce_sum(value**2) for value in values)
    return values, tape.gradient(loss, [inputs, *weights])


def in_torch(layer, inputs, **options):
    """The same of a torch.nn.LSTM with the layer's weights: kernels transposed, one of two biases zero."""
    weights = {weight.name: np.asarray(weight) for weight in layer.weights}
    reference = torch.nn.LSTM(FEATURES, UNITS, batch_first=True, dtype=torch.float64, **options)
    with torch.no_grad():
        reference.weight_ih_l0.copy_(torch.tensor(weights["input_kernel"].T))
        reference.weight_hh_l0.copy_(torch.tensor(weights["recurrent_kernel"].T))
        reference.bias_ih_l0.copy_(torch.tensor(weights["bias"]))
        reference.bias_hh_l0.zero_()
        if "projection_kernel" in weights:
            reference.weight_hr_l0.copy_(torch.tensor(weights["projection_kernel"].T))
    inputs = torch.tensor(inputs, requires_grad=True)
    outputs, (hidden, cell_state) = reference(inputs)
    values = [outputs, hidden[0], cell_state[0]]
    sum((value**2).sum() for value in values).backward()
    kernels = [reference.weight_ih_l0, reference.weight_hh_l0, *([reference.weight_hr_l0] if options else [])]
    d_kernels = [kernel.grad.T for kernel in kernels]
    gradients = [inputs.grad, *d_kernels[:2], reference.bias_ih_l0.grad, *d_kernels[2:]]
    return [value.detach() for value in values], gradients


def assert_close(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@LSTM_LAYER
def test_lstm_is_keras_lstm(layer, inputs):
    reference = keras.layers.LSTM(UNITS, return_sequences=True, return_state=True, dtype="float64")
    reference.build(inputs.shape)
    reference.set_weights(layer.get_weights())
    values, gradients = outputs_and_gradients(layer, inputs)
    expected_values, expected_gradients = outputs_and_gradients(reference, inputs)
    assert_close(values, expected_values)
    assert_close(gradients, expected_gradients)


@LSTM_LAYER
def test_lstm_is_torch_lstm(layer, inputs):
    values, gradients = outputs_and_gradients(layer, inputs)
    expected_values, expected_gradients = in_torch(layer, inputs)
    assert_close(values, expected_values)
    assert_close(gradients, expected_gradients)


@PROJECTED_LAYER
def test_projected_lstm_is_torch_lstm_with_proj_size(layer, inputs):
    values, gradients = outputs_and_gradients(layer, inputs)
    assert [value.shape[-1] for value in values] == [PROJECTION, PROJECTION, UNITS]
    expected_values, expected_gradients = in_torch(layer, inputs, proj_size=PROJECTION)
    assert_close(values, expected_values)
    assert_close(gradients, expected_gradients)
