"""Direct maximum-entropy features of n-grams."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from zoo.heads.hierarchical import HierarchicalSoftmax

# Odd numbers with about as many ones as zeros, of 63 bits: the golden ratio's, and one of MurmurHash3's.
_GOLDEN = 0x1E3779B97F4A7C15
_MIXER = 0x7F51AFD7ED558CCD


@keras.saving.register_keras_serializable("zoo")
class MaximumEntropy(HierarchicalSoftmax):
    """A hierarchical softmax whose logits have weights of n-grams besides, by way of a hash:

        logit of a class += scale * sum over n = 2 ... order: D_c[hash(last n - 1 words)][class]
        logit of a word  += scale * sum over n = 2 ... order: D_w[hash(last n - 1 words, class)][place in it]

    (Mikolov et al. 2011, "Strategies for Training Large Scale Neural Network Language Models",
    doi:10.1109/ASRU.2011.6163930.) A network that need not learn what an n-gram model knows. Only the
    weights of the target's class are touched, and P sums to 1, as that of the hierarchical softmax.

    Args:
        order: of the longest n-grams.
        buckets: how many histories have weights of their own, of D_c [buckets, classes] and of D_w
            [buckets, class size]; where there are more, some share them.
        scale: of the sums. A step along the gradient moves a logit by its square: most n-grams are seen
            but a few times, and are to learn more from each than the network's weights.
        and those of `HierarchicalSoftmax`.

    Raises:
        ValueError: an order below 2, no buckets, or a scale that is not above 0.

    Differs from the paper: histories share rows of weights, where the authors' program has rows overlap.
    """

    def __init__(
        self,
        vocabulary_size: int,
        tied_to: keras.layers.Embedding | None = None,
        initializer: Any = None,
        classes: int = 0,
        order: int = 3,
        buckets: int = 2**17,
        scale: float = 1.0,
        **kwargs,
    ):
        super().__init__(vocabulary_size, tied_to, initializer, classes, **kwargs)
        if order < 2:
            raise ValueError(f"order={order}: n-grams with a history have at least two words")
        if buckets < 1:
            raise ValueError(f"buckets={buckets}: there must be at least one")
        if not 0 < scale < math.inf:
            raise ValueError(f"scale={scale}: must be above 0")
        self.order = int(order)
        self.buckets = int(buckets)
        self.scale = float(scale)
        self.history_size = self.order - 1

    def build(self, hidden_shape):
        super().build(hidden_shape)
        for name, size in (("class_features", self.class_count), ("word_features", self.class_size)):
            features = self.add_weight(name=name, shape=(self.buckets, size), initializer="zeros")
            setattr(self, name, features)

    def _class_logits(self, hidden, history):
        rows = self._rows(self._hashes(history))  # [tokens, order - 1]
        features = tf.gather(self.class_features.value, rows)
        return super()._class_logits(hidden, history) + self.scale * tf.reduce_sum(features, axis=1)

    def _with_features(self, logits, classes, history):
        hashes = self._hashes(history)
        if len(classes.shape) == 2:  # several classes a token
            hashes = hashes[:, tf.newaxis]
        rows = self._rows(mixed(hashes, classes[..., tf.newaxis]))  # [..., order - 1]
        features = tf.gather(self.word_features.value, rows)
        return logits + self.scale * tf.reduce_sum(features, axis=-2)

    def _hashes(self, history):
        """Of the last 1, 2, ... order - 1 words of histories [tokens, order - 1]: int64, of that shape."""
        hashes, last = [], tf.zeros_like(history[:, 0], tf.int64)
        for place in reversed(range(self.history_size)):
            last = mixed(last, history[:, place])
            hashes.append(last)
        return tf.stack(hashes, axis=1)

    def _rows(self, hashes):
        return tf.cast(tf.math.floormod(hashes, self.buckets), tf.int32)

    def get_config(self):
        return {**super().get_config(), "order": self.order, "buckets": self.buckets, "scale": self.scale}


def mixed(hashes: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """Hashes, int64, of what had these hashes and a number, broadcast."""
    hashes = (hashes + tf.cast(numbers, tf.int64) + 1) * tf.constant(_GOLDEN, tf.int64)
    hashes = tf.bitwise.bitwise_xor(hashes, tf.bitwise.right_shift(hashes, tf.constant(32, tf.int64)))
    hashes *= tf.constant(_MIXER, tf.int64)
    return tf.bitwise.bitwise_xor(hashes, tf.bitwise.right_shift(hashes, tf.constant(29, tf.int64)))
