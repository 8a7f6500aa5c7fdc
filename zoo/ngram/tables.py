"""Tables of n-grams in the TensorFlow graph: sorted keys (see zoo.ngram.counting), and a value of each."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.ngram.backoff import NONE


def read(variable: keras.Variable) -> tf.Tensor:
    """The variable's value. Were it itself gathered from, each later read would copy it whole."""
    return variable.value.read_value()


def or_zero(variable: keras.Variable, index: tf.Tensor) -> tf.Tensor:
    """The variable's values at the indices; 0 where there is none."""
    return tf.where(index < 0, 0.0, tf.gather(read(variable), tf.maximum(index, 0)))


def find(keys: keras.Variable, history: tf.Tensor, words: tf.Tensor, vocabulary_size: int) -> tf.Tensor:
    """As zoo.ngram.backoff.find, of tensors, whose shapes are broadcast."""
    sorted_keys = read(keys)
    wanted = tf.where(history < 0, tf.constant(NONE, tf.int64), history * vocabulary_size + words)
    place = tf.minimum(_lower_bound(sorted_keys, wanted), sorted_keys.shape[0] - 1)
    return tf.where(tf.equal(tf.gather(sorted_keys, place), wanted), place, NONE)


def followers(keys: keras.Variable, history: tf.Tensor, vocabulary_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The n-grams that go on from histories [batch]: their indices, [n], and row and word of each, [n, 2]."""
    sorted_keys = read(keys)
    # There are none for NONE.
    starts, ends = (_lower_bound(sorted_keys, (history + more) * vocabulary_size) for more in (0, 1))
    places = tf.ragged.range(starts, ends)
    words = tf.gather(sorted_keys, places.flat_values) % vocabulary_size
    return places.flat_values, tf.stack([places.value_rowids(), words], axis=1)


def _lower_bound(keys: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """How many of the sorted keys are below each of those wanted, in their shape, which may be empty."""
    flat = tf.reshape(wanted, [1, -1])  # tf.searchsorted does not take empty ones
    place = tf.raw_ops.LowerBound(sorted_inputs=keys[tf.newaxis], values=flat, out_type=tf.int64)
    return tf.reshape(place, tf.shape(wanted))
