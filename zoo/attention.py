"""Attention: which of the encoder's outputs each step of a decoder looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


class Attention(keras.layers.Layer):
    """A mean of the memory, weighted by how well each of its steps suits a query.

        a_ts = softmax_s(score(q_t, m_s)),   context_t = sum_s a_ts m_s

    Shapes: queries [batch, time, units], memory [batch, steps, size], mask bool [batch, steps], False where
    the memory is padding, which gets the weight 0; at least one step is none. The memory's part of the scores
    is computed once, by `keys`; `attend` gives context [batch, time, size] and weights [batch, time, steps].
    """

    def call(self, queries, memory, mask):
        return self.attend(queries, self.keys(memory), memory, mask)

    def keys(self, memory: tf.Tensor) -> tf.Tensor:
        """The memory, ready to be compared with queries: [batch, steps, n]."""
        raise NotImplementedError

    def score(self, queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """[batch, time, steps]."""
        raise NotImplementedError

    def attend(
        self, queries: tf.Tensor, keys: tf.Tensor, memory: tf.Tensor, mask: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        scores = self.score(queries, keys)
        scores = tf.where(mask[:, tf.newaxis], scores, scores.dtype.min)
        weights = tf.nn.softmax(scores)
        return tf.matmul(weights, memory), weights


@keras.saving.register_keras_serializable("zoo")
class Multiplicative(Attention):
    """score(q, m) = q . W m

    Source: Luong et al. 2015, arXiv:1508.04025, equation 8, "general".
    """

    def build(self, queries_shape, memory_shape, mask_shape=None):
        self.memory_kernel = self.add_weight(
            name="memory_kernel", shape=(memory_shape[-1], queries_shape[-1])
        )

    def keys(self, memory):
        return _product(memory, self.memory_kernel)

    def score(self, queries, keys):
        return tf.matmul(queries, keys, transpose_b=True)


@keras.saving.register_keras_serializable("zoo")
class Additive(Attention):
    """score(q, m) = v . tanh(W q + U m)

    Source: Bahdanau et al. 2015, arXiv:1409.0473, appendix A.1.2. As many units as a query has.
    """

    def build(self, queries_shape, memory_shape, mask_shape=None):
        units = queries_shape[-1]
        self.query_kernel = self.add_weight(name="query_kernel", shape=(units, units))
        self.memory_kernel = self.add_weight(name="memory_kernel", shape=(memory_shape[-1], units))
        self.score_kernel = self.add_weight(name="score_kernel", shape=(units, 1))

    def keys(self, memory):
        return _product(memory, self.memory_kernel)

    def score(self, queries, keys):
        hidden = _product(queries, self.query_kernel)[:, :, tf.newaxis] + keys[:, tf.newaxis]
        return _product(tf.tanh(hidden), self.score_kernel)[..., 0]


def _product(inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
    return tf.tensordot(inputs, tf.cast(kernel, inputs.dtype), 1)


ATTENTIONS: dict[str, Callable[..., Attention]] = {
    "multiplicative": Multiplicative,
    "additive": Additive,
}
