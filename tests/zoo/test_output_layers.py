"""The output layers: probabilities, losses and gradients against their equations in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import randomize
from oracles import log_softmax, weights_of

from zoo.heads import (
    HEADS,
    AdaptiveSoftmax,
    HierarchicalSoftmax,
    MaximumEntropy,
    MixtureOfSoftmaxes,
    OutputLayer,
    base,
)
from zoo.heads.adaptive import default_cutoffs
from zoo.heads.hierarchical import TILE, tiles

TOKENS, UNITS, VOCABULARY = 9, 6, 13

CASES = {
    "full": ("full", {}),
    "adaptive": ("adaptive", {"cutoffs": [4, 9], "factor": 2.0}),
    "adaptive of one cluster": ("adaptive", {"cutoffs": "5"}),
    "adaptive without clusters": ("adaptive", {"cutoffs": []}),
    "sampled": ("sampled", {"samples": 5}),
    "nce": ("nce", {"samples": 5}),
    "blackout": ("blackout", {"samples": 5}),
    "mixture": ("mixture", {"components": 3}),
    "mixture of one": ("mixture", {"components": 1}),
    "hierarchical": ("hierarchical", {}),
    "hierarchical of uneven classes": ("hierarchical", {"classes": 3}),
    "maxent": ("maxent", {"order": 4, "buckets": 50}),
    "maxent of bigrams": ("maxent", {"order": 2, "buckets": 7}),
}
SAMPLED = ("sampled", "nce", "blackout")
EXACT = [name for name, (kind, _) in CASES.items() if kind not in SAMPLED]  # their loss is -log P
HISTORY = np.random.default_rng(8).integers(VOCABULARY, size=(TOKENS, 3)).astype(np.int32)


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


def history_of(head: OutputLayer, tokens: int = TOKENS) -> np.ndarray:
    """[tokens, history_size]; the layers that read none are given none of its columns."""
    return np.resize(HISTORY[:, HISTORY.shape[1] - head.history_size :], (tokens, head.history_size))


@pytest.fixture
def batch():
    """hidden, targets among which are the ends of the vocabulary, and weights."""
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


def mixture_in_numpy(head: MixtureOfSoftmaxes, hidden):
    weights = weights_of(head)
    prior = np.exp(log_softmax(hidden @ weights["prior_kernel"]))
    probabilities = 0.0
    for k, kernel in enumerate(np.split(weights["context_kernel"], head.components, axis=1)):
        context = np.tanh(hidden @ kernel + np.split(weights["context_bias"], head.components)[k])
        component = np.exp(log_softmax(context @ np.asarray(head.embedding).T + weights["bias"]))
        probabilities += prior[:, [k]] * component
    return np.log(probabilities)


def hierarchical_in_numpy(head: HierarchicalSoftmax, hidden, history):
    weights, embedding = weights_of(head), np.asarray(head.embedding)
    log_prob = np.zeros((len(hidden), VOCABULARY))
    for row, (h, words) in enumerate(zip(hidden, history, strict=True)):
        of_classes = weights["class_embedding"] @ h + weights["class_bias"]
        if isinstance(head, MaximumEntropy):
            of_classes = of_classes + sum(weights["class_features"][rows_of(head, words)])
        for number, class_log_prob in enumerate(log_softmax(of_classes)):
            members = np.arange(VOCABULARY)[number * head.class_size :][: head.class_size]
            logits = embedding[members] @ h + weights["bias"][members]
            if isinstance(head, MaximumEntropy):
                features = sum(weights["word_features"][rows_of(head, words, number)])
                logits = logits + features[: len(members)]
            log_prob[row, members] = class_log_prob + log_softmax(logits)
    return log_prob


def rows_of(head: MaximumEntropy, words, class_number=None) -> list[int]:
    """The rows of features of a history's last 1, 2, ... words, and of a class."""
    rows, hashed = [], 0
    for word in reversed(words.tolist()):
        hashed = mixed_in_python(hashed, word)
        own = hashed if class_number is None else mixed_in_python(hashed, class_number)
        rows.append(own % head.buckets)
    return rows


def mixed_in_python(hashed: int, number: int) -> int:
    def wrapped(value):  # to 64 bits with a sign
        return (value + 2**63) % 2**64 - 2**63

    hashed = wrapped((hashed + number + 1) * 0x1E3779B97F4A7C15)
    hashed = wrapped((hashed ^ hashed >> 32) * 0x7F51AFD7ED558CCD)
    return hashed ^ hashed >> 29


def full_in_numpy(head, hidden):
    return log_softmax(hidden @ np.asarray(head.embedding).T + np.asarray(head.bias))


IN_NUMPY = {"AdaptiveSoftmax": adaptive_in_numpy, "MixtureOfSoftmaxes": mixture_in_numpy}


def log_probabilities(head: OutputLayer, hidden, history=None) -> np.ndarray:
    """[tokens, vocabulary], in NumPy."""
    if isinstance(head, HierarchicalSoftmax):
        return hierarchical_in_numpy(head, hidden, history_of(head) if history is None else history)
    return IN_NUMPY.get(type(head).__name__, full_in_numpy)(head, hidden)


# Probabilities


def test_they_are_those_of_the_equations(head, batch, chunked):
    hidden, targets, _ = batch
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
def test_exact_loss_and_gradients_in_a_graph(exact, batch, tokens, monkeypatch):
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", 4 * VOCABULARY)
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
        matrices = [
            weight.numpy()
            for weight in head.trainable_weights
            if len(weight.shape) == 2 and "features" not in weight.name  # those start at zero
        ]
        assert len({matrix.ravel()[0] for matrix in matrices}) == len(matrices), case
        assert all(np.abs(matrix).max() <= 0.1 for matrix in matrices), case


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


# The mixture of softmaxes


def test_a_tied_mixture_may_have_units_of_another_number(batch):
    hidden, targets, weights = batch
    embedding = keras.layers.Embedding(VOCABULARY, 4, dtype="float64")
    embedding.build((None, None))
    head = make("mixture", tied_to=embedding)
    assert "output_embedding" not in {weight.name for weight in head.weights}
    expected = mixture_in_numpy(head, hidden)[np.arange(TOKENS), targets]
    np.testing.assert_allclose(head.loss(*batch), -(weights * expected).sum(), rtol=1e-10)


def test_a_mixture_has_components():
    with pytest.raises(ValueError, match="needs at least one"):
        MixtureOfSoftmaxes(VOCABULARY, components=0)


@pytest.mark.parametrize("confidence", [20.0, 200.0, 1e4])
def test_extreme_confidence_of_a_mixture(confidence):
    """Right or wrong beyond what a float32 exponential can hold, the loss and gradients stay finite."""
    head = make("mixture", "float32")
    embedding = np.zeros((VOCABULARY, UNITS), np.float32)
    embedding[3, 0], embedding[5, 0] = confidence, -confidence
    head.output_embedding.assign(embedding)
    hidden = np.ones((4, UNITS), np.float32)
    targets = np.array([3, 5, 0, 3], np.int32)
    ours = dense_gradients(head.loss, head, hidden, targets, np.ones(4, np.float32))
    assert all(np.isfinite(value).all() for value in ours)
    np.testing.assert_allclose(ours[0], -tf.reduce_sum(head.log_prob(hidden, targets)), rtol=1e-5)


# The hierarchical softmax and n-grams


@pytest.mark.parametrize("tokens", [0, 1, 8, 9, 40])
def test_tiles_are_of_one_class_each(tokens):
    classes = np.random.default_rng(tokens).integers(5, size=tokens).astype(np.int32)
    slots, tile_classes = (value.numpy() for value in tiles(tf.constant(classes), 5))
    assert len(set(slots.tolist())) == tokens
    np.testing.assert_array_equal(tile_classes[slots // TILE], classes)
    assert len(tile_classes) == sum(-(-np.count_nonzero(classes == number) // TILE) for number in range(5))


@pytest.mark.parametrize(
    ("classes", "sizes"), [(0, (4, 4)), (3, (3, 5)), (13, (13, 1)), (1, (1, 13)), (6, (5, 3))]
)
def test_classes_cover_the_vocabulary(classes, sizes):
    head = HierarchicalSoftmax(VOCABULARY, classes=classes)
    assert (head.class_count, head.class_size) == sizes


@pytest.mark.parametrize("classes", [-1, VOCABULARY + 1])
def test_numbers_of_classes_that_cannot_be(classes):
    with pytest.raises(ValueError, match=f"classes={classes}: must be from 0"):
        HierarchicalSoftmax(VOCABULARY, classes=classes)


def test_a_tied_hierarchy_has_the_embedding_of_its_words(batch):
    hidden, targets, weights = batch
    embedding = keras.layers.Embedding(VOCABULARY, UNITS, dtype="float64")
    embedding.build((None, None))
    head = make("hierarchical", tied_to=embedding)
    expected = hierarchical_in_numpy(head, hidden, history_of(head))[np.arange(TOKENS), targets]
    np.testing.assert_allclose(head.loss(*batch), -(weights * expected).sum(), rtol=1e-10)


def test_only_the_features_of_what_was_seen_have_gradients(batch):
    head = make("maxent of bigrams", buckets=1000)
    hidden, targets, weights = (value[:3] for value in batch)
    history = history_of(head, 3)
    with tf.GradientTape() as tape:
        loss = head.loss(tf.constant(hidden), targets, weights, history)
    of_classes, of_words = tape.gradient(loss, [head.class_features.value, head.word_features.value])
    assert set(of_classes.indices.numpy()) == {rows_of(head, words)[0] for words in history}
    assert set(of_words.indices.numpy()) == {
        rows_of(head, words, target // head.class_size)[0]
        for words, target in zip(history, targets.tolist(), strict=True)
    }


def test_histories_spread_over_the_buckets():
    """As evenly as at random: neighbours in each word's id do not collide more often."""
    words = np.stack(np.meshgrid(np.arange(100), np.arange(100)), axis=-1).reshape(-1, 2).astype(np.int32)
    head = MaximumEntropy(VOCABULARY, order=3, buckets=2**14)
    rows = head._rows(head._hashes(tf.constant(words))).numpy()
    assert len(set(rows[:, 0])) == pytest.approx(100, abs=3)
    expected = 2**14 * (1 - np.exp(-(10**4) / 2**14))
    assert len(set(rows[:, 1])) == pytest.approx(expected, rel=0.03)


def test_orders_and_buckets_that_cannot_be():
    with pytest.raises(ValueError, match="at least two words"):
        MaximumEntropy(VOCABULARY, order=1)
    with pytest.raises(ValueError, match="at least one"):
        MaximumEntropy(VOCABULARY, buckets=0)
