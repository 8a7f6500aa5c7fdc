"""The hierarchical softmax: a class first, then a word of the class."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.heads.base import OutputLayer, chunk_rows, rows_and_shape
from zoo.heads.full import by_chunks, logits_of

TILE = 8  # tokens of one class that are computed at once


@keras.saving.register_keras_serializable("zoo")
class HierarchicalSoftmax(OutputLayer):
    """P(word | h) = softmax(C h + c)[class of the word] * softmax(E_class h + b_class)[word]

    (Goodman 2001, arXiv:cs/0108006; Mikolov et al. 2011, doi:10.1109/ICASSP.2011.5947611.) The second
    softmax is over the words of the target's class alone. A class is a stretch of ids, of words about as
    frequent as each other.

    Args:
        classes: how many there are, or a few less where words run out; 0: the square root of the vocabulary.
        and those of `OutputLayer`.

    Raises:
        ValueError: more classes than words, or fewer than none.

    Differs from the papers: classes have equal numbers of words, so that they are blocks of equal size.
    """

    CAN_BE_TIED = True

    SPARSE_GRADIENTS = True

    def __init__(
        self,
        vocabulary_size: int,
        tied_to: keras.layers.Embedding | None = None,
        initializer: Any = None,
        classes: int = 0,
        **kwargs,
    ):
        super().__init__(vocabulary_size, tied_to, initializer, **kwargs)
        if not 0 <= classes <= vocabulary_size:
            raise ValueError(
                f"classes={classes}: must be from 0 (the default) to the {vocabulary_size} words"
            )
        self.classes = int(classes)
        self.class_size = math.ceil(vocabulary_size / (self.classes or math.ceil(math.sqrt(vocabulary_size))))
        self.class_count = math.ceil(vocabulary_size / self.class_size)

    def build(self, hidden_shape):
        self.class_embedding = self.add_matrix("class_embedding", self.class_count, hidden_shape[-1])
        self.class_bias = self.add_bias("class_bias", self.class_count)
        self.add_embedding(hidden_shape[-1])

    def call(self, hidden, history=None):
        rows, shape = rows_and_shape(hidden)
        history = None if history is None else tf.reshape(history, [-1, self.history_size])
        classes = tf.nn.log_softmax(self._class_logits(rows, history))
        logits = logits_of(rows, tf.convert_to_tensor(self.embedding), tf.convert_to_tensor(self.bias))
        surplus = self.class_count * self.class_size - self.vocabulary_size
        logits = tf.pad(logits, [[0, 0], [0, surplus]], constant_values=-np.inf)
        logits = tf.reshape(logits, [-1, self.class_count, self.class_size])
        of_class = tf.tile(tf.range(self.class_count)[tf.newaxis], [tf.shape(rows)[0], 1])
        logits = self._with_features(logits, of_class, history)
        log_prob = classes[:, :, tf.newaxis] + tf.nn.log_softmax(logits)
        log_prob = tf.reshape(log_prob, [-1, self.class_count * self.class_size])[:, : self.vocabulary_size]
        return tf.reshape(log_prob, tf.concat([shape, [self.vocabulary_size]], 0))

    def loss(self, hidden, targets, weights, history=None):
        """sum_n weights[n] * -log P(targets[n] | hidden[n]), in nats."""
        return tf.reduce_sum(weights * self._nats(hidden, targets, history))

    def log_prob(self, hidden, targets, history=None):
        # At worst, each token has a class of its own, whose vectors are gathered.
        rows = chunk_rows(self.class_size * hidden.shape[-1])
        further = [] if history is None else [history]
        return by_chunks(lambda *chunk: -self._nats(*chunk), rows, hidden, targets, *further)

    def _nats(self, hidden, targets, history=None):
        """-log P of the targets, [tokens]."""
        classes = targets // self.class_size
        of_classes = self._class_logits(hidden, history)
        of_words = self._with_features(self._logits_within(hidden, classes), classes, history)
        cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
        return cross_entropy(labels=classes, logits=of_classes) + cross_entropy(
            labels=targets % self.class_size, logits=of_words
        )

    def _class_logits(self, hidden, history):
        """[tokens, classes]."""
        return logits_of(
            hidden, tf.convert_to_tensor(self.class_embedding), tf.convert_to_tensor(self.class_bias)
        )

    def _with_features(self, logits, classes, history):
        """Word logits [..., class size] and what else there is to know about the words of classes [...]."""
        return logits

    def _logits_within(self, hidden, classes):
        """Those of the words of each token's class, [tokens, class size]; minus infinity where it has fewer.

        Tokens of a class share a tile, so that a class's vectors are gathered once for up to TILE of them.
        """
        slots, tile_classes = tiles(classes, self.class_count)
        words = tile_classes[:, tf.newaxis] * self.class_size + tf.range(self.class_size)
        exists = words < self.vocabulary_size
        words = tf.minimum(words, self.vocabulary_size - 1)
        units, count = hidden.shape[-1], tf.size(tile_classes)
        tiled = tf.scatter_nd(slots[:, tf.newaxis], hidden, [count * TILE, units])
        vectors = tf.ensure_shape(tf.gather(self.embedding.value, words), [None, self.class_size, units])
        logits = tf.matmul(tf.reshape(tiled, [-1, TILE, units]), vectors, transpose_b=True)
        bias = tf.where(exists, tf.gather(self.bias.value, words), -np.inf)
        logits += bias[:, tf.newaxis]  # [tiles, TILE, class size]
        return tf.gather(tf.reshape(logits, [-1, self.class_size]), slots)

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


def tiles(classes: tf.Tensor, class_count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Places for tokens of classes [tokens] in tiles that are of one class each.

    Gives the places, [tokens], counted through all tiles of TILE places, and the tiles' classes [tiles].
    """
    order = tf.argsort(classes, stable=True)
    counts = tf.math.bincount(classes, minlength=class_count, maxlength=class_count)
    needed = -(-counts // TILE)
    # In order: a token's rank within its class, after the tiles of the classes before.
    of_ordered = tf.gather(classes, order)
    first = tf.cumsum(needed, exclusive=True) * TILE - tf.cumsum(counts, exclusive=True)
    places = tf.range(tf.size(classes)) + tf.gather(first, of_ordered)
    slots = tf.scatter_nd(order[:, tf.newaxis], places, tf.shape(classes))
    return slots, tf.repeat(tf.range(class_count), needed)
