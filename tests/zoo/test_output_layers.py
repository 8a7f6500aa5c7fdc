"""The output layers: probabilities, losses and gradients against their equations in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import randomize
from oracles import log_softmax, weights_of

from zoo.heads import HEADS, AdaptiveSoftmax, OutputLayer, base
from zoo.heads.adaptive import default_cutoffs

TOKENS, UNITS, VOCABULARY = 9, 6, 13

CASES = {
    "full": ("full", {}),
    "adaptive": ("adaptive", {"cutoffs": [4, 9], "factor": 2.0}),
    "adaptive of one cluster": ("adaptive", {"cutoffs": "5"}),
    "adaptive without clusters": ("adaptive", {"cutoffs": []}),
    "sampled": ("sampled", {"samples": 5}),
    "nce": ("nce", {"samples": 5}),
    "blackout": ("blackout", {"samples": 5}),
}
EXACT = [name for name, (kind, _) in CASES.items() if kind in ("full", "adaptive")]  # the loss is -log P


def make(case: str, dtype: str = "float64", **further) -> OutputLayer:
    kind, options = CASES[case]
    head = HEADS[kind](VOCABULARY, dtype=dtype, **{**options, **further})
    head.build((None, UNITS))
    randomize(head, seed=2, scale=0.8)
    if head.needs_counts:
        head.set_counts(np.arange(VOCABULARY, 0, -1))
    return head


@pytest.fixture(params=CASES)
def head(request) -> OutputLayer:
    return make(request.param)


@pytest.fixture(params=EXACT)
def exact(request) -> OutputLayer:
    return make(request.param)


@pytest.fixture
def batch():
    """hidden, targets in which each word of the vocabulary's ends occurs, and weights."""
    random = np.random.default_rng(1)
    targets = np.array([0, 3, 4, 4, 8, 9, 12, 12, 1], np.int32)
    weights = np.array([1.0, 2.0, 0.5, 1.0, 1.0, 0.0, 1.0, 3.0, 1.0])
    return random.normal(size=(TOKENS, UNITS)), targets, weights


@pytest.fixture(params=[1, 4, 1000], ids=lambda rows: f"{rows} rows a chunk")
def chunked(request, monkeypatch):
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", request.param * VOCABULARY)


# The equations


def adaptive_in_numpy(head: AdaptiveSoftmax, hidden):
    weights = weights_of(head)
    top = log_softmax(hidden @ weights["head_embedding"].T + weights["head_bias"])
    columns = []
    for word in range(VOCABULARY):
        cluster = sum(word >= cutoff for cutoff in head.cutoffs)
        if not cluster:
            columns.append(top[:, word])
            continue
        projected = hidden @ weights[f"projection_{cluster}"].T
        within = log_softmax(projected @ weights[f"embedding_{cluster}"].T + weights[f"bias_{cluster}"])
        first = head.cutoffs[cluster - 1]
        columns.append(top[:, head.cutoffs[0] + cluster - 1] + within[:, word - first])
    return np.stack(columns, axis=1)


def full_in_numpy(head, hidden):
    return log_softmax(hidden @ np.asarray(head.embedding).T + np.asarray(head.bias))


IN_NUMPY = {"AdaptiveSoftmax": adaptive_in_numpy}


def log_probabilities(head: OutputLayer, hidden) -> np.ndarray:
    """[tokens, vocabulary], in NumPy."""
    return IN_NUMPY.get(type(head).__name__, full_in_numpy)(head, hidden)


# Probabilities


def test_they_are_those_of_the_equations(head, batch, chunked):
    hidden, targets, _ = batch
    expected = log_probabilities(head, hidden)
    np.testing.assert_allclose(np.exp(expected).sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(tf.nn.log_softmax(head(hidden)), expected, rtol=1e-10)
    signature = [tf.TensorSpec([None, UNITS], tf.float64), tf.TensorSpec([None], tf.int32)]
    for function in (head.log_prob, tf.function(head.log_prob, signature)):
        log_prob = function(tf.constant(hidden), tf.constant(targets))
        np.testing.assert_allclose(log_prob, expected[np.arange(TOKENS), targets], rtol=1e-10)
        assert function(tf.zeros([0, UNITS], tf.float64), tf.zeros([0], tf.int32)).shape == (0,)


def test_they_sum_to_one_in_single_precision(batch):
    for case in CASES:
        head = make(case, "float32")
        hidden = tf.cast(tf.repeat(batch[0][:1], VOCABULARY, axis=0), tf.float32)
        log_prob = head.log_prob(hidden, tf.range(VOCABULARY))
        np.testing.assert_allclose(tf.reduce_sum(tf.exp(log_prob)), 1, rtol=1e-5, err_msg=case)


@pytest.mark.parametrize("shape", [(), (4,), (2, 0), (2, 1, 3)])
def test_logits_of_any_shape(head, shape):
    hidden = np.random.default_rng(1).normal(size=(*shape, UNITS))
    logits = head(hidden)
    assert logits.shape == (*shape, VOCABULARY)
    expected = log_probabilities(head, hidden.reshape(-1, UNITS)).reshape(logits.shape)
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
    nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=head(hidden))
    return tf.reduce_sum(weights * nats)


def assert_close(actual, expected, tolerance=1e-9):
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_exact_loss_and_gradients(exact, batch, chunked):
    hidden, targets, weights = batch
    log_prob = log_probabilities(exact, hidden)[np.arange(TOKENS), targets]
    ours = dense_gradients(exact.loss, exact, *batch)
    np.testing.assert_allclose(ours[0], -(weights * log_prob).sum(), rtol=1e-10)
    assert_close(ours, dense_gradients(lambda *given: plain_loss(exact, *given), exact, *batch))


@pytest.mark.parametrize("tokens", [None, TOKENS], ids=["any number of tokens", "known number of tokens"])
def test_exact_loss_and_gradients_in_a_graph(exact, batch, tokens, monkeypatch):
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", 4 * VOCABULARY)
    signature = [
        tf.TensorSpec([tokens, UNITS], tf.float64),
        tf.TensorSpec([tokens], tf.int32),
        tf.TensorSpec([tokens], tf.float64),
    ]
    function = tf.function(lambda *given: dense_gradients(exact.loss, exact, *given), signature)
    expected = dense_gradients(lambda *given: plain_loss(exact, *given), exact, *batch)
    assert_close(function(*batch), expected)


def test_loss_of_no_tokens(head):
    nothing = np.zeros((0, UNITS)), np.zeros(0, np.int32), np.zeros(0)
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
        matrices = [weight.numpy() for weight in head.trainable_weights if weight.shape.rank == 2]
        assert len({matrix.ravel()[0] for matrix in matrices}) == len(matrices), case
        assert all(0 < np.abs(matrix).max() <= 0.1 for matrix in matrices), case


# The adaptive softmax


def test_default_cutoffs_grow_with_the_vocabulary():
    assert default_cutoffs(33278) == [1824, 9120]
    assert default_cutoffs(100) == []
    assert default_cutoffs(101) == [100]
    assert len(default_cutoffs(793_471)) == 3


@pytest.mark.parametrize("cutoffs", [[0, 4], [4, 4], [5, 4], [4, VOCABULARY], "4/20", "-1"])
def test_cutoffs_have_to_ascend_within_the_vocabulary(cutoffs):
    with pytest.raises(ValueError, match=r"must ascend from above 0 to below the 13 words"):
        AdaptiveSoftmax(VOCABULARY, cutoffs=cutoffs)


def test_cutoffs_that_are_no_numbers_and_factors_below_one():
    with pytest.raises(ValueError, match="expected ids between slashes"):
        AdaptiveSoftmax(VOCABULARY, cutoffs="4-8")
    with pytest.raises(ValueError, match="at least 1"):
        AdaptiveSoftmax(VOCABULARY, factor=0.5)


def test_clusters_are_the_smaller_the_rarer():
    head = AdaptiveSoftmax(1000, cutoffs="100/300/600")
    head.build((None, 32))
    assert [matrix.shape for matrix in head.projections] == [(8, 32), (2, 32), (1, 32)]
    assert [matrix.shape for matrix in head.cluster_embeddings] == [(200, 8), (300, 2), (400, 1)]
    assert head.head_embedding.shape == (103, 32)


def test_what_has_no_vector_a_word_cannot_be_tied():
    embedding = keras.layers.Embedding(VOCABULARY, UNITS)
    with pytest.raises(ValueError, match="AdaptiveSoftmax has no vector a word"):
        AdaptiveSoftmax(VOCABULARY, tied_to=embedding)
