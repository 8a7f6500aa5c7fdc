"""Losses that see a sample of the vocabulary, to train what is a softmax over all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from zoo.heads.full import FullSoftmax

PROPOSALS = ("unigram", "log_uniform")


class Sample(NamedTuple):
    """Words of a proposal Q, shared by the tokens of a batch.

    `log_expected` gives, of ids of any shape, the logarithm of how often Q has each of them in a sample.
    """

    ids: tf.Tensor  # int32 [samples]
    log_expected: Callable[[tf.Tensor], tf.Tensor]


class SampledLoss(FullSoftmax):
    """A full softmax that is trained on a sample of the words, drawn for each batch, the same for its tokens.

        Q(word) = count(word)^alpha / sum of these over the vocabulary

    Probabilities are those of the full softmax. The loss of training is another one; it is comparable with
    -log P only where a class says so.

    Args:
        samples: how many words are drawn.
        alpha: the power of the counts.
        proposal: "unigram" for the counts of the training data, see `set_counts`; "log_uniform" for
            log(1 + 1 / (1 + id)), what they are by Zipf's law where ids fall in frequency.
        and those of `OutputLayer`.

    Raises:
        ValueError: no samples, or an unknown proposal.
    """

    SPARSE_GRADIENTS = True

    def __init__(
        self,
        vocabulary_size: int,
        tied_to: keras.layers.Embedding | None = None,
        initializer: Any = None,
        samples: int = 1024,
        alpha: float = 0.75,
        proposal: str = "unigram",
        **kwargs,
    ):
        super().__init__(vocabulary_size, tied_to, initializer, **kwargs)
        if samples < 1:
            raise ValueError(f"samples={samples}: a sampled loss needs at least one")
        if proposal not in PROPOSALS:
            raise ValueError(f"proposal={proposal}: must be one of {', '.join(PROPOSALS)}")
        self.samples = int(samples)
        self.alpha = alpha
        self.proposal = proposal
        self.needs_counts = proposal == "unigram"
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, hidden_shape):
        super().build(hidden_shape)
        self.counts = self.add_weight(
            name="counts",
            shape=(self.vocabulary_size,),
            initializer=lambda shape, dtype: tf.cast(np.log1p(1 / np.arange(1, shape[0] + 1)), dtype),
            trainable=False,
        )

    def set_counts(self, counts):
        self.counts.assign(np.maximum(counts, 1))  # a word that training lacks has a chance, too

    def draw(self) -> Sample:
        """The words of one batch."""
        raise NotImplementedError

    def with_replacement(self) -> Sample:
        """Each of the samples by itself from Q, so that a word is expected samples * Q(word) times."""
        proposal = self._proposal()
        # In double precision: single has no room for the rare among a million words.
        cumulative = tf.cumsum(tf.cast(proposal, tf.float64))
        uniform = keras.random.uniform([self.samples], dtype="float64", seed=self.seed_generator)
        ids = tf.searchsorted(cumulative, uniform * cumulative[-1], side="right")
        expected = tf.math.log(self.samples * proposal)
        return Sample(tf.minimum(ids, self.vocabulary_size - 1), lambda ids: tf.gather(expected, ids))

    def without_replacement(self) -> Sample:
        """`samples` different words: the first to come, where each one's waiting time has the rate Q(word).

        If the next one comes at the time t, a word has had the chance 1 - exp(-Q(word) t) to be among
        them, with which sums over the sample are unbiased (Cohen and Kaplan 2007,
        doi:10.1145/1281100.1281133: rank conditioning). All words with chance 1 where there are no more.
        """
        if self.samples >= self.vocabulary_size:
            return Sample(
                tf.range(self.vocabulary_size), lambda ids: tf.zeros(tf.shape(ids), self.counts.dtype)
            )
        proposal = self._proposal()
        uniform = keras.random.uniform(proposal.shape, dtype=proposal.dtype, seed=self.seed_generator)
        waiting, ids = tf.math.top_k(tf.math.log1p(-uniform) / proposal, self.samples + 1)
        chance = -tf.math.expm1(waiting[-1] * proposal)
        return Sample(ids[:-1], lambda ids: tf.math.log(tf.gather(chance, ids)))

    def _proposal(self) -> tf.Tensor:
        """Q [vocabulary]."""
        weights = tf.convert_to_tensor(self.counts) ** self.alpha
        return weights / tf.reduce_sum(weights)

    def logits_of_sample(self, hidden, targets, ids) -> tuple[tf.Tensor, tf.Tensor]:
        """Those of the targets, [tokens], and of all words of the sample, [tokens, samples].

        The weights are gathered, so that their gradients are sparse.
        """
        both = tf.concat([targets, ids], 0)
        sizes = [tf.size(targets), tf.size(ids)]
        own, shared = tf.split(tf.gather(self.embedding.value, both), sizes)
        own_bias, shared_bias = tf.split(tf.gather(self.bias.value, both), sizes)
        shared = tf.ensure_shape(shared, [None, hidden.shape[-1]])
        logits = tf.nn.bias_add(tf.matmul(hidden, shared, transpose_b=True), shared_bias)
        return tf.reduce_sum(hidden * own, axis=-1) + own_bias, logits

    def get_config(self):
        options = ("samples", "alpha", "proposal")
        return {**super().get_config(), **{name: getattr(self, name) for name in options}}


@keras.saving.register_keras_serializable("zoo")
class SampledSoftmax(SampledLoss):
    """A full softmax trained with an estimate of its normalizer.

        loss = -u_w + log(exp(u_w) + sum of exp(u_j) / E_j over the words j of a sample S but w)

    of the target w, u = E h + b, and E_j the chance of j to be in the sample (Jean et al. 2015,
    arXiv:1412.2007; the target itself is no sample, as in Blanc and Rendle 2018, arXiv:1712.00527). The
    sum is unbiased, so the loss is about -log P, and just that where all words are samples.

    Differs from the paper: the sample is without replacement, not of one part of the corpus.
    """

    def draw(self):
        return self.without_replacement()

    def loss(self, hidden, targets, weights, history=None):
        sample = self.draw()
        own, others = self.logits_of_sample(hidden, targets, sample.ids)
        is_target = targets[:, tf.newaxis] == sample.ids
        impossible = tf.constant(-np.inf, others.dtype)
        others = tf.where(is_target, impossible, others - sample.log_expected(sample.ids))
        logits = tf.concat([own[:, tf.newaxis], others], 1)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.zeros_like(targets), logits=logits)
        return tf.reduce_sum(weights * nats)


@keras.saving.register_keras_serializable("zoo")
class NoiseContrastive(SampledLoss):
    """A full softmax whose logits are trained to tell the target from noise.

        loss = -log sigma(u_w - log E_w) - sum of log sigma(log E_j - u_j) over a sample of k words j

    with E_j = k Q(j), how often j is expected as noise (Gutmann and Hyvarinen 2010; for language models Mnih
    and Teh 2012, arXiv:1206.6426). It takes exp(u) for the probability, so training brings the
    normalizers near 1, where the biases of -log(vocabulary) let them start. Not comparable with -log P.
    """

    loss_is_cross_entropy = False

    def draw(self):
        return self.with_replacement()

    def add_bias(self, name, size):
        start = keras.initializers.Constant(-np.log(size))
        return self.add_weight(name=name, shape=(size,), initializer=start)

    def loss(self, hidden, targets, weights, history=None):
        sample = self.draw()
        own, noise = self.logits_of_sample(hidden, targets, sample.ids)
        nats = tf.nn.softplus(sample.log_expected(targets) - own)
        nats += tf.reduce_sum(tf.nn.softplus(noise - sample.log_expected(sample.ids)), axis=-1)
        return tf.reduce_sum(weights * nats)


@keras.saving.register_keras_serializable("zoo")
class BlackOut(SampledLoss):
    """A full softmax trained to tell the target from the other words of a sample.

        p_i  = exp(u_i) / Q(i) / sum of exp(u_j) / Q(j) over the target w and a sample S of words
        loss = -log p_w - sum of log(1 - p_j) over the words j of S

    (Ji et al. 2016, arXiv:1511.06909.) Not comparable with -log P. As the sample grows, its
    gradients become those of -log P.

    Differs from the paper: the sample, shared by the batch, may have a token's target, too. Without it the
    sum would lack the target's part of the normalizer, however large the sample.
    """

    loss_is_cross_entropy = False

    def draw(self):
        return self.with_replacement()

    def loss(self, hidden, targets, weights, history=None):
        sample = self.draw()
        own, others = self.logits_of_sample(hidden, targets, sample.ids)
        own -= sample.log_expected(targets)
        others -= sample.log_expected(sample.ids)
        logits = tf.concat([own[:, tf.newaxis], others], 1)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.zeros_like(targets), logits=logits)
        shares = tf.nn.softmax(logits)[:, 1:]
        # A share that rounds to 1 is pushed down by the target's term alone.
        nats -= tf.reduce_sum(tf.math.log1p(-tf.minimum(shares, 1 - 1e-6)), axis=-1)
        return tf.reduce_sum(weights * nats)
