"""Random numbers of a seed a row: what a row gets does not depend on the rows beside it."""

from __future__ import annotations

import tensorflow as tf

from zoo.decoding.settings import rows


def uniforms(seed: tf.Tensor, batch_size: tf.Tensor, count: int) -> tf.Tensor:
    """Random numbers in [0, 1), [batch, count], from a seed a row, int32 [batch, 2] or [1, 2].

    The seed (-1, -1) asks for fresh randomness; any other gives the numbers of `tf.random.stateless_uniform`,
    which knows one seed only: called for each row it would take longer than a step of a language model.
    """
    seed = rows(seed, batch_size)
    # Not tf.random.uniform: an export would keep the global seed of the program that made it.
    fresh = tf.raw_ops.RandomUniformInt(shape=tf.shape(seed), minval=0, maxval=tf.int32.max)
    seed = tf.where(tf.reduce_all(tf.equal(seed, -1), axis=1, keepdims=True), fresh, seed)
    key, counter = _mixed(seed)
    numbers = tf.range(-(-count // 4), dtype=tf.int32)[tf.newaxis]
    zeros = tf.zeros_like(numbers + seed[:, :1])
    bits = philox([tf.bitcast(zeros + numbers, tf.uint32), tf.bitcast(zeros, tf.uint32), *counter], key)
    bits = tf.reshape(tf.stack(bits, axis=2), [batch_size, -1])[:, :count]
    # The lower 23 bits are the mantissa of a float in [1, 2).
    bits = tf.bitwise.bitwise_or(tf.bitwise.bitwise_and(bits, _uint32(0x7FFFFF)), _uint32(0x3F800000))
    return tf.bitcast(bits, tf.float32) - 1.0


def _mixed(seed: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Key, and upper half of the counter, that TensorFlow makes of seeds [batch, 2]: numbers, [batch, 1]."""
    halves = tf.reshape(tf.bitcast(tf.cast(seed, tf.int64), tf.uint32), [-1, 4])  # lower and upper, in turn
    mixed = philox(tf.split(halves, 4, axis=1), [_uint32(0x3EC8F720), _uint32(0x02461E29)])
    return mixed[:2], mixed[2:]


def philox(counter: list[tf.Tensor], key: list[tf.Tensor]) -> list[tf.Tensor]:
    """Philox4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405): four random uint32 for each counter.

    `counter` has four parts and `key` two, all uint32.
    """
    (a, b, c, d), (left, right) = counter, key
    for _ in range(10):
        high_a, low_a = _product(a, 0xD2511F53)
        high_c, low_c = _product(c, 0xCD9E8D57)
        a, c = _xor(high_c, b, left), _xor(high_a, d, right)
        b, d = low_c, low_a
        left, right = left + _uint32(0x9E3779B9), right + _uint32(0xBB67AE85)
    return [a, b, c, d]


def _product(value: tf.Tensor, factor: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Upper and lower 32 bits."""
    product = tf.cast(value, tf.uint64) * tf.constant(factor, tf.uint64)
    high = tf.bitwise.right_shift(product, tf.constant(32, tf.uint64))
    return tf.cast(high, tf.uint32), tf.cast(product, tf.uint32)


def _xor(first: tf.Tensor, second: tf.Tensor, third: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(first, second), third)


def _uint32(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint32)
