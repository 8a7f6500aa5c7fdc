"""Normalization within cells."""

from __future__ import annotations

import tensorflow as tf


def layer_norm(values: tf.Tensor, epsilon: float = 1e-5) -> tf.Tensor:
    """Each row less its mean, over its standard deviation: layer normalization before gain and bias.

        (a - mean(a)) / sqrt(var(a) + epsilon)          over the last dimension

    Source: Ba et al. 2016, arXiv:1607.06450, equation 4; epsilon is the authors' code's.
    """
    centered = values - tf.reduce_mean(values, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
    return centered * tf.math.rsqrt(variance + epsilon)
