"""Ids as vectors."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class Embedding(keras.layers.Layer):
    """Ids [...] -> rows [..., size] of E [vocabulary_size, size], and no more of E is read than these.

    Keras's reads all of E, and that is a copy where optimizers change some rows only. From this one's first
    call on, whoever reads all of E gets a copy: an output layer that shares E is better off with Keras's.
    """

    def __init__(self, vocabulary_size: int, size: int, embeddings_initializer: Any = "uniform", **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size, self.size = vocabulary_size, size
        self.embeddings_initializer = embeddings_initializer

    def build(self, ids_shape):
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.vocabulary_size, self.size),
            initializer=self.embeddings_initializer,
            autocast=False,  # all of E would be cast
        )

    def call(self, ids):
        return tf.cast(tf.gather(self.embeddings.value, ids), self.compute_dtype)
