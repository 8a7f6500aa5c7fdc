"""Adagrad that leaves alone what has no gradient."""

from __future__ import annotations

import keras
import tensorflow as tf


class Adagrad(keras.optimizers.Adagrad):
    """G <- G + g^2,   w <- w - rate * g / sqrt(G + epsilon),   with G = `initial_accumulator_value` at first.

    (Duchi et al. 2011.) Of a gradient that has some rows only, each of them once, just these are read and
    written: the step of an embedding takes no time and no memory for the words that it has not seen.
    """

    def update_step(self, gradient, variable, learning_rate):
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        rate = tf.cast(learning_rate, variable.dtype)
        rows, values = gradient.indices, tf.cast(gradient.values, variable.dtype)
        sums = self._accumulators[self._get_variable_index(variable)].value
        sums.scatter_add(tf.IndexedSlices(tf.square(values), rows))
        change = rate * values / tf.sqrt(tf.gather(sums, rows) + self.epsilon)
        variable.scatter_sub(tf.IndexedSlices(change, rows))
