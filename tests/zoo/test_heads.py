"""The softmax over the vocabulary against NumPy, and its own gradients against automatic ones."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import log_softmax

from zoo.heads import FullSoftmax, base, full

TOKENS, UNITS, VOCABULARY = 7, 3, 11


def make(dtype="float64", tied=False, scale=1.0, seed=0) -> FullSoftmax:
    random = np.random.default_rng(seed)
    embedding = None
    if tied:
        embedding = keras.layers.Embedding(VOCABULARY, UNITS, dtype=dtype)
        embedding.build((None, None))
    head = FullSoftmax(VOCABULARY, tied_to=embedding, dtype=dtype)
    head.build((None, UNITS))
    for weight in head.weights:
        weight.assign(random.normal(scale=scale, size=weight.shape))
    return head


def table(head: FullSoftmax):
    """E, the head's own or the tied embedding's."""
    return head.output_embedding if head.tied_to is None else head.tied_to.embeddings


@pytest.fixture
def batch():
    random = np.random.default_rng(1)
    weights = np.array([1.0, 1.0, 0.0, 0.5, 1.0, 2.0, 0.0])
    targets = random.integers(VOCABULARY, size=TOKENS).astype(np.int32)
    targets[4] = targets[5]  # a word may occur twice
    return random.normal(size=(TOKENS, UNITS)), targets, weights


@pytest.fixture(params=[1, 3, 7, 100], ids=lambda rows: f"{rows} rows a chunk")
def chunked(request, monkeypatch):
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", request.param * VOCABULARY)


def logits_in_numpy(head, hidden):
    return hidden @ table(head).numpy().T + head.bias.numpy()


def plain_loss(head, hidden, targets, weights):
    logits = tf.matmul(hidden, tf.convert_to_tensor(table(head)), transpose_b=True) + head.bias
    return tf.reduce_sum(
        weights * tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    )


def gradients(function, head, hidden, targets, weights):
    """The loss and its gradients with respect to hidden, E and b, the loss used twice over."""
    hidden = tf.convert_to_tensor(hidden)
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        loss = function(hidden, targets, weights)
        used = 3.0 * loss
    return [loss, *tape.gradient(used, [hidden, table(head).value, head.bias.value])]


def assert_close(actual, expected, tolerance=1e-10):
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 0), (2, 1, 3)])
def test_logits(tied, shape):
    head = make(tied=tied)
    hidden = np.random.default_rng(1).normal(size=(*shape, UNITS))
    logits = head(hidden)
    assert logits.shape == (*shape, VOCABULARY)
    np.testing.assert_allclose(logits, logits_in_numpy(head, hidden), rtol=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_loss_and_gradients(tied, batch, chunked):
    head = make(tied=tied)
    hidden, targets, weights = batch
    ours = gradients(head.loss, head, *batch)
    assert_close(ours, gradients(lambda *given: plain_loss(head, *given), head, *batch))
    log_prob = log_softmax(logits_in_numpy(head, hidden))[np.arange(TOKENS), targets]
    np.testing.assert_allclose(ours[0], -(weights * log_prob).sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("jit_compile", "tokens"),
    [(False, None), (False, TOKENS), (True, TOKENS)],
    ids=["any number of tokens", "known number of tokens", "xla"],
)
def test_loss_and_gradients_in_a_graph(batch, jit_compile, tokens, monkeypatch):
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", 3 * VOCABULARY)
    head = make()
    signature = [
        tf.TensorSpec([tokens, UNITS], tf.float64),
        tf.TensorSpec([tokens], tf.int32),
        tf.TensorSpec([tokens], tf.float64),
    ]
    function = tf.function(
        lambda *given: gradients(head.loss, head, *given), input_signature=signature, jit_compile=jit_compile
    )
    expected = gradients(lambda *given: plain_loss(head, *given), head, *batch)
    assert_close(function(*batch), expected)


def operations_of_logits(head, batch) -> list[tf.Operation]:
    """Those of the loss and its gradients whose results are [tokens, vocabulary], in order."""
    function = tf.function(lambda *given: gradients(head.loss, head, *given))
    graph = function.get_concrete_function(*(tf.constant(value) for value in batch)).graph
    shapes = [
        (operation, output.shape) for operation in graph.get_operations() for output in operation.outputs
    ]
    return [
        operation
        for operation, shape in shapes
        if shape.rank == 2 and shape[0] > 1 and shape[1] == VOCABULARY
    ]


def test_chunks_hold_no_more_than_their_share(batch, monkeypatch):
    """Of a known number of tokens, no tensor in the graph has more logits than a chunk may have."""
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", 3 * VOCABULARY)
    assert max(operation.outputs[0].shape[0] for operation in operations_of_logits(make(), batch)) == 3


def test_logits_are_in_memory_once(batch):
    """Each result of their size is used by the next operation alone, which takes over its memory."""
    logits, biased, softmax = operations_of_logits(make(), batch)
    assert [operation.type for operation in (logits, biased, softmax)] == ["MatMul", "BiasAdd", "Softmax"]
    assert logits.outputs[0].consumers() == [biased]
    assert biased.outputs[0].consumers() == [softmax]


@pytest.mark.parametrize("tokens", [None, TOKENS], ids=["any number of tokens", "known number of tokens"])
def test_chunks_come_one_after_the_other(batch, tokens, monkeypatch):
    sizes, chunk_loss = [], full._chunk_loss

    def noted(hidden, *others):
        tf.numpy_function(lambda part: sizes.append(len(part)), [hidden], [])
        return chunk_loss(hidden, *others)

    monkeypatch.setattr(full, "_chunk_loss", noted)
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", 3 * VOCABULARY)
    head = make()
    signature = [tf.TensorSpec([tokens, *value.shape[1:]], value.dtype) for value in batch]
    tf.function(lambda *given: gradients(head.loss, head, *given), signature)(*batch)
    assert sizes == [3, 3, 1]


def test_no_tokens(chunked):
    head = make()
    batch = np.zeros((0, UNITS)), np.zeros(0, np.int32), np.zeros(0)
    loss, d_hidden, d_embedding, d_bias = gradients(head.loss, head, *batch)
    assert loss == 0
    assert d_hidden.shape == (0, UNITS)
    np.testing.assert_array_equal(d_embedding, np.zeros((VOCABULARY, UNITS)))
    np.testing.assert_array_equal(d_bias, np.zeros(VOCABULARY))


@pytest.mark.parametrize("confidence", [20.0, 200.0, 1e4])
def test_extreme_confidence(batch, confidence):
    """Right or wrong beyond what a float32 exponential can hold, the loss and gradients stay exact."""
    head = make("float32", scale=0.0)
    hidden = np.zeros((4, UNITS), np.float32)
    hidden[:, 0] = 1
    embedding = np.zeros((VOCABULARY, UNITS), np.float32)
    embedding[3, 0], embedding[5, 0] = confidence, -confidence
    head.output_embedding.assign(embedding)
    targets = np.array([3, 5, 0, 3], np.int32)  # certain, impossible, very unlikely, certain
    weights = np.ones(4, np.float32)
    ours = gradients(head.loss, head, hidden, targets, weights)
    expected = gradients(lambda *given: plain_loss(head, *given), head, hidden, targets, weights)
    assert all(np.isfinite(value).all() for value in ours)
    assert_close(ours, expected, 1e-5)
    np.testing.assert_allclose(ours[0], 3 * confidence, rtol=1e-5)
    np.testing.assert_allclose(
        head.log_prob(hidden, targets), [0, -2 * confidence, -confidence, 0], rtol=1e-6, atol=1e-6
    )


def test_loss_is_as_exact_as_single_precision_allows():
    head = make("float32", scale=3.0)
    random = np.random.default_rng(4)
    hidden = random.normal(size=(50, UNITS)).astype(np.float32)
    targets = random.integers(VOCABULARY, size=50).astype(np.int32)
    exact = log_softmax(logits_in_numpy(head, hidden.astype(np.float64)))[np.arange(50), targets]
    np.testing.assert_allclose(head.loss(hidden, targets, np.ones(50, np.float32)), -exact.sum(), rtol=2e-6)
    np.testing.assert_allclose(head.log_prob(hidden, targets), exact, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_log_prob(tied, tokens, batch, chunked):
    head = make(tied=tied)
    hidden, targets = batch[0][:tokens], batch[1][:tokens]
    expected = log_softmax(logits_in_numpy(head, hidden))[np.arange(tokens), targets]
    signature = [tf.TensorSpec([None, UNITS], tf.float64), tf.TensorSpec([None], tf.int32)]
    for function in (head.log_prob, tf.function(head.log_prob, input_signature=signature)):
        log_prob = function(tf.constant(hidden), tf.constant(targets))
        assert log_prob.shape == (tokens,)
        np.testing.assert_allclose(log_prob, expected, rtol=1e-12)


def test_probabilities_sum_to_one():
    head = make()
    hidden = np.repeat(np.random.default_rng(3).normal(size=(1, UNITS)), VOCABULARY, axis=0)
    log_prob = head.log_prob(tf.constant(hidden), tf.range(VOCABULARY))
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1, rtol=1e-12)


def test_tied_embedding_is_the_very_same_weight():
    head = make(tied=True)
    assert {weight.name for weight in head.weights} == {"embeddings", "bias"}
    assert sum(np.prod(weight.shape) for weight in head.trainable_variables) == VOCABULARY * (UNITS + 1)


def test_tied_embedding_of_another_size():
    embedding = keras.layers.Embedding(VOCABULARY, UNITS)
    with pytest.raises(ValueError, match=r"tied embeddings need .*: 3 != 4"):
        FullSoftmax(VOCABULARY, tied_to=embedding).build((None, UNITS + 1))


def test_config_round_trip():
    head = FullSoftmax(VOCABULARY, initializer="he_normal")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(head))
    assert copy.get_config() == head.get_config()
    assert copy.vocabulary_size == VOCABULARY
    assert copy.get_config()["initializer"]["class_name"] == "HeNormal"


def test_a_head_of_zeros_guesses_uniformly():
    head = FullSoftmax(VOCABULARY, initializer="zeros")
    head.build((None, UNITS))
    log_prob = head.log_prob(tf.ones([1, UNITS]), tf.constant([2]))
    np.testing.assert_allclose(log_prob, [-np.log(VOCABULARY)], rtol=1e-6)
