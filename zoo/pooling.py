"""From the outputs of a recurrence at all steps to one vector: the encoding of a sequence.

Padded steps count for nothing: the encoding of a sequence does not depend on what it is batched with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


class Pooling(keras.layers.Layer):
    """outputs [batch, time, units], mask bool [batch, time] -> [batch, output_size].

    Each sequence has at least one step that is not masked, else its encoding means nothing; it is padded at
    its end. `bidirectional` says that the outputs
    come from both directions of time.
    """

    def __init__(self, bidirectional: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.bidirectional = bidirectional

    def compute_mask(self, outputs, previous_mask):
        return None  # there are no steps any more

    def build(self, outputs_shape):
        self.output_size = outputs_shape[-1]

    def get_config(self):
        return {**super().get_config(), "bidirectional": self.bidirectional}


@keras.saving.register_keras_serializable("zoo")
class Final(Pooling):
    """The output of the last step; of both directions, that of the first step, too: [h_T; h_1].

    Source: Sutskever et al. 2014, arXiv:1409.3215, for one direction.
    """

    def build(self, outputs_shape):
        self.output_size = outputs_shape[-1] * (2 if self.bidirectional else 1)

    def call(self, outputs, mask):
        last = tf.gather(outputs, tf.maximum(tf.math.count_nonzero(mask, axis=1) - 1, 0), batch_dims=1)
        return tf.concat([last, outputs[:, 0]], axis=-1) if self.bidirectional else last


@keras.saving.register_keras_serializable("zoo")
class Maximum(Pooling):
    """The largest output of each unit over all steps: max_t h_t.

    Source: Conneau et al. 2017, arXiv:1705.02364, section 3.2.
    """

    def call(self, outputs, mask):
        return tf.reduce_max(tf.where(mask[..., tf.newaxis], outputs, outputs.dtype.min), axis=1)


@keras.saving.register_keras_serializable("zoo")
class Mean(Pooling):
    """The mean output of each unit over all steps: sum_t h_t / T."""

    def call(self, outputs, mask):
        shares = tf.cast(mask, outputs.dtype)[..., tf.newaxis]
        return tf.reduce_sum(outputs * shares, axis=1) / tf.reduce_sum(shares, axis=1)


@keras.saving.register_keras_serializable("zoo")
class SelfAttention(Pooling):
    """A mean weighted by what the outputs themselves say.

        a_t = softmax_t(v . tanh(W h_t)),   sum_t a_t h_t

    Source: Lin et al. 2017, arXiv:1703.03130, equations 5 and 6. W, `hidden_kernel`, is [units, units].
    """

    def build(self, outputs_shape):
        super().build(outputs_shape)
        units = self.output_size
        self.hidden_kernel = self.add_weight(name="hidden_kernel", shape=(units, units))
        self.score_kernel = self.add_weight(name="score_kernel", shape=(units, 1))

    def call(self, outputs, mask):
        hidden = tf.tanh(tf.einsum("btu,uv->btv", outputs, tf.cast(self.hidden_kernel, outputs.dtype)))
        scores = tf.einsum("btv,vo->bto", hidden, tf.cast(self.score_kernel, outputs.dtype))
        scores = tf.where(mask[..., tf.newaxis], scores, scores.dtype.min)
        return tf.reduce_sum(tf.nn.softmax(scores, axis=1) * outputs, axis=1)


POOLINGS: dict[str, Callable[..., Any]] = {
    "final": Final,
    "maximum": Maximum,
    "mean": Mean,
    "attention": SelfAttention,
}
