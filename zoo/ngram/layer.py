"""A back-off model inside the TensorFlow graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.ngram.backoff import BackoffModel
from zoo.ngram.tables import find, followers, or_zero, read


class Backoff(keras.layers.Layer):
    """log P(w | h) of a BackoffModel, by binary search in its sorted keys.

    Args:
        sizes: how many n-grams there are of each order; of the first, the vocabulary size.
    """

    def __init__(self, sizes: Sequence[int], **kwargs: Any):
        super().__init__(trainable=False, **kwargs)
        self.order, self.vocabulary_size = len(sizes), sizes[0]
        self.history_size = self.order - 1

        def table(name: str, order: int, dtype: str) -> keras.Variable:
            return self.add_weight(
                name=f"{name}_{order}", shape=(sizes[order - 1],), dtype=dtype, initializer="zeros"
            )

        orders = range(1, self.order + 1)
        # Those of the words are the words themselves.
        self.keys = [None, *(table("keys", order, "int64") for order in orders[1:])]
        self.log_prob = [table("log_prob", order, "float32") for order in orders]
        self.backoff = [table("backoff", order, "float32") for order in orders[:-1]]
        self.built = True

    def assign(self, model: BackoffModel) -> None:
        """Take over a model of these sizes."""
        for variables, arrays in (
            (self.keys[1:], model.keys[1:]),
            (self.log_prob, model.log_prob),
            (self.backoff, model.backoff),
        ):
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(array)

    def model(self) -> BackoffModel:
        """The model that was assigned."""
        log_prob, backoff = ([v.numpy() for v in variables] for variables in (self.log_prob, self.backoff))
        keys = [np.arange(self.vocabulary_size), *(variable.numpy() for variable in self.keys[1:])]
        return BackoffModel(self.vocabulary_size, keys, log_prob, backoff)

    def call(self, tokens: tf.Tensor, targets: int | tf.Tensor) -> tf.Tensor:
        """log P of each of the last `targets` tokens after those before it; float32 [batch, targets].

        Tokens are int64 [batch, time], NONE where there is none; order - 1 of them are before the targets.
        """
        time = tf.shape(tokens)[1]
        first = time - targets
        index = tokens  # of the n-gram that begins at each place
        total = tf.gather(read(self.log_prob[0]), tokens[:, first:])
        for level in range(1, self.order):
            total += or_zero(self.backoff[level - 1], index[:, first - level : -1])
            index = self._find(level, index[:, :-1], tokens[:, level:])
            found = index[:, first - level :]
            total = tf.where(found < 0, total, or_zero(self.log_prob[level], found))
        return total

    def distribution(self, tokens: tf.Tensor) -> tf.Tensor:
        """log P of every word after tokens [batch, at least order - 1]; float32 [batch, vocabulary]."""
        log_prob = tf.tile(read(self.log_prob[0])[tf.newaxis], [tf.shape(tokens)[0], 1])
        index = tokens
        for level in range(1, self.order):
            history = index[:, -1]  # of the last `level` tokens
            log_prob += or_zero(self.backoff[level - 1], history)[:, tf.newaxis]
            log_prob = self._with_followers(level, history, log_prob)
            index = self._find(level, index[:, :-1], tokens[:, level:])
        return log_prob

    def _find(self, level: int, history: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
        return find(self.keys[level], history, words, self.vocabulary_size)

    def _with_followers(self, level: int, history: tf.Tensor, log_prob: tf.Tensor) -> tf.Tensor:
        """log_prob [batch, vocabulary], with that of the n-grams which go on from the histories [batch]."""
        places, cells = followers(self.keys[level], history, self.vocabulary_size)
        return tf.tensor_scatter_nd_update(log_prob, cells, tf.gather(read(self.log_prob[level]), places))
