"""Losses on a sample of the words: against NumPy with the same sample, and against the full softmax's."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import randomize
from oracles import log_softmax

from zoo.heads import BlackOut, FullSoftmax, NoiseContrastive, SampledSoftmax

TOKENS, UNITS, VOCABULARY = 8, 4, 20
KINDS = [SampledSoftmax, NoiseContrastive, BlackOut]
COUNTS = 1000 // np.arange(1, VOCABULARY + 1)


def make(kind, dtype="float64", scale=0.7, **options):
    head = kind(VOCABULARY, dtype=dtype, **options)
    head.build((None, UNITS))
    randomize(head, seed=2, scale=scale)
    if head.needs_counts:
        head.set_counts(COUNTS)
    return head


@pytest.fixture
def batch():
    random = np.random.default_rng(1)
    targets = np.array([0, 3, 3, 19, 7, 1, 0, 12], np.int32)
    weights = np.array([1.0, 2.0, 0.5, 1.0, 1.0, 0.0, 1.0, 3.0])
    return random.normal(size=(TOKENS, UNITS)), targets, weights


def with_gradients(head, hidden, *others):
    """The loss, and its gradients with respect to hidden, E and b."""
    hidden = tf.convert_to_tensor(hidden)
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        loss = head.loss(hidden, *others)
    gradients = tape.gradient(loss, [hidden, head.embedding.value, head.bias.value])
    return [loss, *(tf.convert_to_tensor(gradient) for gradient in gradients)]


# The samples


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_samples_with_replacement_follow_the_powers_of_the_counts(alpha):
    keras.utils.set_random_seed(1)
    head = make(BlackOut, samples=200_000, alpha=alpha)
    sample = head.draw()
    proposal = COUNTS**alpha / np.sum(COUNTS**alpha)
    words = tf.range(VOCABULARY)
    np.testing.assert_allclose(np.exp(sample.log_expected(words)), 200_000 * proposal, rtol=1e-10)
    seen = np.bincount(sample.ids, minlength=VOCABULARY)
    deviation = np.sqrt(200_000 * proposal * (1 - proposal))
    assert np.all(np.abs(seen - 200_000 * proposal) < 5 * deviation)


def test_samples_without_replacement_weigh_what_their_chances_say():
    """A word in the sample weighs 1 over its chance, 1 on average of all samples, whose sums are unbiased."""
    keras.utils.set_random_seed(1)
    head = make(SampledSoftmax, samples=6, alpha=0.75)

    def weights_of_a_sample(_):
        sample = head.draw()
        return tf.scatter_nd(
            sample.ids[:, tf.newaxis], tf.exp(-sample.log_expected(sample.ids)), [VOCABULARY]
        )

    draws = tf.zeros(4000, tf.float64)
    drawn = tf.function(lambda: tf.map_fn(weights_of_a_sample, draws, parallel_iterations=1))().numpy()
    assert np.all(np.count_nonzero(drawn, axis=1) == 6)
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(axis=0) - 1) < 5 * error)
    assert error.max() < 0.1


def test_a_rare_word_among_a_million_is_drawn_as_often_as_it_should_be():
    keras.utils.set_random_seed(1)
    size, samples = 1_000_000, 100_000
    head = NoiseContrastive(size, samples=samples, alpha=1.0, proposal="log_uniform")
    head.build((None, 1))
    ids = head.draw().ids.numpy()
    for first, end in ((0, 1), (10, 100), (500_000, size)):
        expected = samples * np.log((end + 1) / (first + 1)) / np.log(size + 1)
        seen = np.count_nonzero((ids >= first) & (ids < end))
        assert abs(seen - expected) < 5 * np.sqrt(expected)


def test_draws_differ_and_follow_the_seed():
    def draws():
        keras.utils.set_random_seed(7)
        head = make(SampledSoftmax, samples=6)
        return [head.draw().ids.numpy().tolist() for _ in range(3)]

    assert draws() == draws()
    assert len({tuple(ids) for ids in draws()}) == 3


def test_words_without_a_count_have_a_chance_too():
    head = make(BlackOut, samples=3, alpha=1.0)
    head.set_counts(np.where(np.arange(VOCABULARY) == 5, 0, 10))
    log_expected = head.draw().log_expected(tf.constant([5, 6]))
    np.testing.assert_allclose(np.exp(log_expected[0] - log_expected[1]), 0.1, rtol=1e-10)


def test_log_uniform_needs_no_counts():
    assert not SampledSoftmax(VOCABULARY, proposal="log_uniform").needs_counts
    assert SampledSoftmax(VOCABULARY).needs_counts


# The losses


def in_numpy(head, ids, expected, hidden, targets, weights):
    """The loss as the papers print it, token by token; `expected` is how often each word is in a sample."""
    embedding, bias = np.asarray(head.embedding), np.asarray(head.bias)
    total = 0.0
    for row, target, weight in zip(hidden, targets, weights, strict=True):
        score = embedding @ row + bias
        others = [word for word in ids if word != target]
        if isinstance(head, SampledSoftmax):
            normalizer = np.exp(score[target]) + sum(np.exp(score[word]) / expected[word] for word in others)
            nats = np.log(normalizer) - score[target]
        elif isinstance(head, NoiseContrastive):
            odds = np.exp(score) / expected
            nats = -np.log(odds[target] / (1 + odds[target])) - sum(
                np.log(1 / (1 + odds[word])) for word in ids
            )
        else:
            power = np.exp(score) / expected
            normalizer = power[target] + sum(power[word] for word in ids)
            nats = -np.log(power[target] / normalizer)
            nats -= sum(np.log(1 - power[word] / normalizer) for word in ids)
        total += weight * nats
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_that_of_the_paper(kind, batch, monkeypatch):
    head = make(kind, samples=7)
    sample = head.draw()
    monkeypatch.setattr(head, "draw", lambda: sample)
    expected = np.exp(sample.log_expected(tf.range(VOCABULARY)))
    targets = np.where(np.arange(TOKENS) == 2, sample.ids[0], batch[1])  # one that is in the sample
    batch = batch[0], targets.astype(np.int32), batch[2]
    loss, *gradients = with_gradients(head, *batch)
    np.testing.assert_allclose(loss, in_numpy(head, sample.ids.numpy(), expected, *batch), rtol=1e-10)

    hidden = batch[0]
    arrays = [hidden, head.embedding.numpy(), head.bias.numpy()]
    random = np.random.default_rng(5)
    directions = [random.normal(size=array.shape) for array in arrays]
    epsilon, values = 1e-6, []
    for step in (epsilon, -epsilon):
        head.output_embedding.assign(arrays[1] + step * directions[1])
        head.bias.assign(arrays[2] + step * directions[2])
        moved = hidden + step * directions[0], *batch[1:]
        values.append(in_numpy(head, sample.ids.numpy(), expected, *moved))
    slope = sum(
        np.sum(gradient * direction) for gradient, direction in zip(gradients, directions, strict=True)
    )
    np.testing.assert_allclose(slope, (values[0] - values[1]) / (2 * epsilon), rtol=1e-6)


def full(head, hidden, targets, weights):
    reference = FullSoftmax(VOCABULARY, dtype="float64")
    reference.build((None, UNITS))
    reference.set_weights([head.embedding.numpy(), head.bias.numpy()])
    return with_gradients(reference, hidden, targets, weights)


@pytest.mark.parametrize("samples", [VOCABULARY, 10 * VOCABULARY])
def test_sampled_softmax_of_all_words_is_the_full_one(batch, samples):
    head = make(SampledSoftmax, samples=samples)
    for ours, theirs in zip(with_gradients(head, *batch), full(head, *batch), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_sampled_normalizers_are_those_of_the_full_softmax_on_average(batch):
    """Of few samples, too: the exponential of a token's loss is 1 / P(target), on average."""
    keras.utils.set_random_seed(1)
    hidden, targets, _ = (value[1:2] for value in batch)
    head = make(SampledSoftmax, samples=6)
    nats, *_ = full(head, hidden, targets, np.ones(1))
    given, draws = [tf.constant(value) for value in (hidden, targets, np.ones(1))], tf.zeros(4000, tf.float64)
    losses = tf.function(lambda: tf.map_fn(lambda _: head.loss(*given), draws, parallel_iterations=1))()
    inverse = np.exp(losses - nats)
    error = inverse.std() / np.sqrt(len(inverse))
    assert 0 < error < 0.02
    assert abs(inverse.mean() - 1) < 5 * error


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_become_those_of_the_full_softmax_as_the_sample_grows(kind, batch):
    """On hidden states whose normalizer is 1, as noise-contrastive estimation takes it to be."""
    keras.utils.set_random_seed(1)
    hidden = np.repeat(batch[0][:1], TOKENS, axis=0)
    errors = []
    for samples in (4, 16) if kind is SampledSoftmax else (100, 10_000):
        head = make(kind, samples=samples)
        scores = hidden[:1] @ head.embedding.numpy().T + head.bias.numpy()
        head.bias.assign(head.bias.numpy() + (log_softmax(scores) - scores)[0, 0])
        _, *expected = full(head, hidden, *batch[1:])
        runs = [with_gradients(head, hidden, *batch[1:])[1:] for _ in range(5)]
        error = [
            np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
            for run in runs
            for ours, theirs in zip(run, expected, strict=True)
        ]
        errors.append(np.mean(error))
    assert errors[1] < 0.4 * errors[0]
    assert errors[1] < (0.5 if kind is SampledSoftmax else 0.05)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("confidence", [20.0, 200.0, 1e4])
def test_extreme_confidence(kind, confidence):
    head = make(kind, "float32", samples=12)
    embedding = np.zeros((VOCABULARY, UNITS), np.float32)
    embedding[3, 0], embedding[5, 0] = confidence, -confidence
    head.output_embedding.assign(embedding)
    hidden = np.zeros((4, UNITS), np.float32)
    hidden[:, 0] = 1
    targets = np.array([3, 5, 0, 3], np.int32)
    for value in with_gradients(head, hidden, targets, np.ones(4, np.float32)):
        assert np.isfinite(value).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_output_embedding_are_sparse(kind, batch):
    head = make(kind, samples=3)
    with tf.GradientTape() as tape:
        loss = head.loss(*(tf.constant(value) for value in batch))
    gradients = tape.gradient(loss, [head.output_embedding.value, head.bias.value])
    assert all(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
    assert {gradient.values.shape[0] for gradient in gradients} == {TOKENS + 3}


def test_noise_contrastive_estimation_starts_about_normalized():
    head = NoiseContrastive(VOCABULARY)
    head.build((None, UNITS))
    logits = head(tf.zeros([1, UNITS]))
    np.testing.assert_allclose(tf.reduce_logsumexp(logits), 0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_tied(kind, batch):
    embedding = keras.layers.Embedding(VOCABULARY, UNITS, dtype="float64")
    embedding.build((None, None))
    head = make(kind, tied_to=embedding, samples=5)
    assert {weight.name for weight in head.trainable_weights} == {"embeddings", "bias"}
    assert all(np.isfinite(value).all() for value in with_gradients(head, *batch))


def test_bad_options():
    with pytest.raises(ValueError, match="needs at least one"):
        SampledSoftmax(VOCABULARY, samples=0)
    with pytest.raises(ValueError, match="must be one of unigram, log_uniform"):
        BlackOut(VOCABULARY, proposal="bigram")
