"""What the output layers have each for itself: clusters, components, classes, n-grams, and their options."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from output_layers import (
    TOKENS,
    UNITS,
    VOCABULARY,
    example_batch,
    hierarchical_in_numpy,
    history_of,
    make,
    mixture_in_numpy,
    rows_of,
)

from zoo.heads import AdaptiveSoftmax, HierarchicalSoftmax, MaximumEntropy, MixtureOfSoftmaxes
from zoo.heads.adaptive import default_cutoffs
from zoo.heads.hierarchical import TILE, tiles


@pytest.fixture
def batch():
    return example_batch()


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


def test_projections_keep_the_length_of_what_they_read():
    head = AdaptiveSoftmax(1000, cutoffs="100/300", initializer="zeros")
    head.build((None, 256))
    hidden = np.random.default_rng(1).normal(size=(500, 256)).astype(np.float32)
    for projection in head.projections:
        lengths = np.linalg.norm(hidden @ projection.numpy().T, axis=1) / np.linalg.norm(hidden, axis=1)
        assert np.sqrt(np.mean(lengths**2)) == pytest.approx(1, rel=0.1)


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
    with tf.GradientTape() as tape:
        loss = head.loss(tf.constant(hidden), targets, np.ones(4, np.float32))
    for gradient in tape.gradient(loss, [weight.value for weight in head.trainable_weights]):
        assert np.isfinite(gradient).all()
    np.testing.assert_allclose(loss, -tf.reduce_sum(head.log_prob(hidden, targets)), rtol=1e-5)


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


def test_orders_buckets_and_scales_that_cannot_be():
    with pytest.raises(ValueError, match="at least two words"):
        MaximumEntropy(VOCABULARY, order=1)
    with pytest.raises(ValueError, match="at least one"):
        MaximumEntropy(VOCABULARY, buckets=0)
    for scale in (0.0, float("nan")):
        with pytest.raises(ValueError, match="must be above 0"):
            MaximumEntropy(VOCABULARY, scale=scale)
