"""The output layers: probabilities, losses and gradients against their equations in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from output_layers import (
    CASES,
    EXACT,
    TOKENS,
    UNITS,
    VOCABULARY,
    WAYS,
    example_batch,
    history_of,
    log_probabilities,
    make,
    quickly,
)

from zoo.heads import HEADS, OutputLayer, base


@pytest.fixture(params=CASES)
def head(request) -> OutputLayer:
    return make(request.param)


@pytest.fixture(params=EXACT)
def exact(request) -> OutputLayer:
    return make(request.param)


@pytest.fixture
def batch():
    return example_batch()


@pytest.fixture(
    params=[pytest.param(1, marks=pytest.mark.slow), 4, 1000], ids=lambda rows: f"{rows} rows a chunk"
)
def chunked(request, monkeypatch):
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", request.param * VOCABULARY)


# Probabilities


@pytest.mark.parametrize("case", quickly(*WAYS, among=CASES))
def test_they_are_those_of_the_equations(case, batch, chunked):
    head, (hidden, targets, _) = make(case), batch
    expected = log_probabilities(head, hidden)
    np.testing.assert_allclose(np.exp(expected).sum(axis=1), 1, rtol=1e-12)
    logits = head(hidden, history=history_of(head))
    np.testing.assert_allclose(tf.nn.log_softmax(logits), expected, rtol=1e-10)
    given = [tf.constant(values) for values in (hidden, targets, history_of(head))]
    signature = [tf.TensorSpec([None, *value.shape[1:]], value.dtype) for value in given]
    for function in (head.log_prob, tf.function(head.log_prob, signature)):
        np.testing.assert_allclose(function(*given), expected[np.arange(TOKENS), targets], rtol=1e-10)
        assert function(*(value[:0] for value in given)).shape == (0,)


def test_they_sum_to_one_in_single_precision(batch):
    for case in CASES:
        head = make(case, "float32")
        hidden = tf.cast(tf.repeat(batch[0][:1], VOCABULARY, axis=0), tf.float32)
        history = tf.repeat(history_of(head, 1), VOCABULARY, axis=0)
        log_prob = head.log_prob(hidden, tf.range(VOCABULARY), history)
        np.testing.assert_allclose(tf.reduce_sum(tf.exp(log_prob)), 1, rtol=1e-5, err_msg=case)


@pytest.mark.parametrize("shape", [(), (4,), (2, 0), (2, 1, 3)])
def test_logits_of_any_shape(head, shape):
    hidden = np.random.default_rng(1).normal(size=(*shape, UNITS))
    history = history_of(head, int(np.prod(shape)))
    logits = head(hidden, history=history.reshape(*shape, head.history_size))
    assert logits.shape == (*shape, VOCABULARY)
    expected = log_probabilities(head, hidden.reshape(-1, UNITS), history).reshape(logits.shape)
    np.testing.assert_allclose(tf.nn.log_softmax(logits), expected, rtol=1e-10)


# Losses


def dense_gradients(function, head, hidden, *others):
    """The loss and its gradients with respect to hidden and all trainable weights, the loss counted twice."""
    hidden = tf.convert_to_tensor(hidden)
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        loss = function(hidden, *others)
        used = 2.0 * loss
    variables = [weight.value for weight in head.trainable_variables]
    zero = tf.UnconnectedGradients.ZERO
    gradients = tape.gradient(used, [hidden, *variables], unconnected_gradients=zero)
    return [loss, *(tf.convert_to_tensor(gradient) for gradient in gradients)]


def plain_loss(head, hidden, targets, weights):
    """What automatic differentiation makes of the logits."""
    logits = head(hidden, history=history_of(head))
    nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.reduce_sum(weights * nats)


def assert_close(actual, expected, tolerance=1e-9):
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_exact_loss_and_gradients(exact, batch, chunked):
    hidden, targets, weights = batch
    log_prob = log_probabilities(exact, hidden)[np.arange(TOKENS), targets]
    ours = dense_gradients(exact.loss, exact, *batch, history_of(exact))
    np.testing.assert_allclose(ours[0], -(weights * log_prob).sum(), rtol=1e-10)
    assert_close(ours, dense_gradients(lambda *given: plain_loss(exact, *given), exact, *batch))


@pytest.mark.parametrize("tokens", [None, TOKENS], ids=["any number of tokens", "known number of tokens"])
@pytest.mark.parametrize("case", quickly(*WAYS, among=EXACT))
def test_exact_loss_and_gradients_in_a_graph(case, batch, tokens, monkeypatch):
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", 4 * VOCABULARY)
    exact = make(case)
    signature = [
        tf.TensorSpec([tokens, UNITS], tf.float64),
        tf.TensorSpec([tokens], tf.int32),
        tf.TensorSpec([tokens], tf.float64),
        tf.TensorSpec([tokens, exact.history_size], tf.int32),
    ]
    function = tf.function(lambda *given: dense_gradients(exact.loss, exact, *given), signature)
    expected = dense_gradients(lambda *given: plain_loss(exact, *given), exact, *batch)
    assert_close(function(*batch, history_of(exact)), expected)


def test_loss_of_no_tokens(head):
    nothing = np.zeros((0, UNITS)), np.zeros(0, np.int32), np.zeros(0), history_of(head, 0)
    loss, d_hidden, *gradients = dense_gradients(head.loss, head, *nothing)
    assert loss == 0
    assert d_hidden.shape == (0, UNITS)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


# Layers


def test_config_round_trip(head):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(head))
    assert copy.get_config() == head.get_config()
    assert [weight.shape for weight in copy.weights] == [weight.shape for weight in head.weights]


def test_matrices_start_differently_and_biases_at_zero():
    for case, (kind, options) in CASES.items():
        head = HEADS[kind](VOCABULARY, initializer=keras.initializers.RandomUniform(-0.1, 0.1), **options)
        head.build((None, UNITS))
        apart = ("features", "projection")  # start in ways of their own
        matrices = [
            weight.numpy()
            for weight in head.trainable_weights
            if len(weight.shape) == 2 and not any(word in weight.name for word in apart)
        ]
        assert len({matrix.ravel()[0] for matrix in matrices}) == len(matrices), case
        assert all(np.abs(matrix).max() <= 0.1 for matrix in matrices), case


def test_logits_start_as_large_as_what_they_are_of():
    keras.utils.set_random_seed(1)
    apart = ("features", "projection")  # start in ways of their own
    for case, (kind, options) in CASES.items():
        head = HEADS[kind](2000, **options)
        head.build((None, 100))
        for weight in head.trainable_weights:
            if len(weight.shape) == 2 and not any(word in weight.name for word in apart):
                rows, columns = weight.shape
                deviation, error = np.std(weight) * columns**0.5, 3 / (rows * columns) ** 0.5
                np.testing.assert_allclose(deviation, 1, atol=error, err_msg=f"{case} {weight.name}")
