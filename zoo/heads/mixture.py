"""The mixture of softmaxes."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from zoo.heads.base import OutputLayer, chunk_rows, rows_and_shape
from zoo.heads.full import by_chunks, differentiated_by_chunks, expectation, logits_of, softmax_gradients


@keras.saving.register_keras_serializable("zoo")
class MixtureOfSoftmaxes(OutputLayer):
    """P(word | h) = sum over k of pi_k * softmax(E tanh(W_k h + b_k) + b)[word],   pi = softmax(W_pi h)

    (Yang et al. 2018, arXiv:1711.03953.) Its logits have as high a rank as the vocabulary allows, those of
    one softmax at most that of h. It takes as many times the time of a full softmax as it has components.

    Args:
        components: how many softmaxes are mixed.
        and those of `OutputLayer`. Untied, the vectors of E are of the size of h.

    Raises:
        ValueError: no components.
    """

    CAN_BE_TIED = True

    def __init__(
        self,
        vocabulary_size: int,
        tied_to: keras.layers.Embedding | None = None,
        initializer: Any = None,
        components: int = 5,
        **kwargs,
    ):
        super().__init__(vocabulary_size, tied_to, initializer, **kwargs)
        if components < 1:
            raise ValueError(f"components={components}: a mixture needs at least one")
        self.components = int(components)

    def build(self, hidden_shape):
        units = hidden_shape[-1]
        size = units if self.tied_to is None else self.tied_to.output_dim
        self.prior_kernel = self.add_matrix("prior_kernel", self.components, units)
        self.context_kernel = self.add_matrix("context_kernel", self.components * size, units)
        self.context_bias = self.add_bias("context_bias", self.components * size)
        self.add_embedding(size)

    def _mixed(self, hidden):
        """Contexts tanh(W_k h + b_k) [tokens, components, size], and log pi [tokens, components]."""
        contexts = tf.matmul(hidden, self.context_kernel.value, transpose_b=True)
        contexts = tf.tanh(contexts + self.context_bias.value)
        contexts = tf.reshape(contexts, [-1, self.components, contexts.shape[-1] // self.components])
        return contexts, tf.nn.log_softmax(tf.matmul(hidden, self.prior_kernel.value, transpose_b=True))

    def _weights(self) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.convert_to_tensor(self.embedding), tf.convert_to_tensor(self.bias)

    def call(self, hidden, history=None):
        rows, shape = rows_and_shape(hidden)
        contexts, log_prior = self._mixed(rows)
        embedding, bias = self._weights()
        parts = [
            log_prior[:, k, tf.newaxis] + tf.nn.log_softmax(logits_of(contexts[:, k], embedding, bias))
            for k in range(self.components)
        ]
        log_prob = tf.reduce_logsumexp(tf.stack(parts), axis=0)
        return tf.reshape(log_prob, tf.concat([shape, [self.vocabulary_size]], 0))

    def loss(self, hidden, targets, weights, history=None):
        """sum_n weights[n] * -log P(targets[n] | hidden[n]), in nats."""
        contexts, log_prior = self._mixed(hidden)
        rows = chunk_rows(self.components * self.vocabulary_size)
        shared = self._weights()
        return differentiated_by_chunks(_chunk_loss, rows, [contexts, log_prior], [targets, weights], shared)

    def log_prob(self, hidden, targets, history=None):
        embedding, bias = self._weights()

        def chunk(hidden, targets):
            contexts, log_prior = self._mixed(hidden)
            _, _, nats, _ = _components(contexts, targets, embedding, bias)
            return tf.reduce_logsumexp(log_prior - nats, axis=1)

        return by_chunks(chunk, chunk_rows(self.components * self.vocabulary_size), hidden, targets)

    def get_config(self):
        return {**super().get_config(), "components": self.components}


def _components(contexts, targets, embedding, bias):
    """`expectation` of the components, -log P(target) as [tokens, components]; and what it was given."""
    components, size = contexts.shape[1:]
    rows, targets = tf.reshape(contexts, [-1, size]), tf.repeat(targets, components)
    expected, observed, nats = expectation(rows, targets, embedding, bias)
    return expected, observed, tf.reshape(nats, [-1, components]), (rows, targets)


def _chunk_loss(contexts, log_prior, targets, weights, embedding, bias):
    """Loss of one chunk and its gradients with respect to contexts, log_prior, embedding and bias.

    To a component the loss is that of a full softmax, weighted by its responsibility for the target,
    r_k = pi_k P_k(target) / P(target).
    """
    expected, observed, nats, (rows, repeated) = _components(contexts, targets, embedding, bias)
    joint = log_prior - nats
    total = -tf.reduce_sum(weights * tf.reduce_logsumexp(joint, axis=1))
    share = weights[:, tf.newaxis] * tf.nn.softmax(joint)  # [tokens, components]
    d_rows, *of_weights = softmax_gradients(
        rows, repeated, tf.reshape(share, [-1]), embedding, bias, expected, observed
    )
    return total, tf.reshape(d_rows, tf.shape(contexts)), -share, *of_weights
