"""The continuous cache of a language model: words read lately are likely where the hidden state is alike."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

EMPTY = -1  # in the place of a word


class Memory(NamedTuple):
    """The last `size` steps of each row, the newest last.

    Their hidden states [batch, size, units], and the words that came next, int32 [batch, size].
    """

    hidden: tf.Tensor
    words: tf.Tensor


def empty_memory(batch_size: int, size: int, units: int, dtype: tf.DType = tf.float32) -> Memory:
    return Memory(tf.zeros([batch_size, size, units], dtype), tf.fill([batch_size, size], EMPTY))


def mix_cache(
    log_prob: tf.Tensor,
    hidden: tf.Tensor,
    targets: tf.Tensor,
    memory: Memory,
    weight: float,
    flatness: float,
) -> tuple[tf.Tensor, Memory]:
    """The log probabilities of a model with a cache, and the memory after these steps.

        p(w | t) = (1 - weight) p_model(w | t) + weight p_cache(w | t)
        p_cache(w | t) ~ sum_(i = t-size ... t-1) exp(flatness h_i . h_t) [x_(i+1) = w]

    While nothing has been read, p = p_model. All of it sees x_1 ... x_t alone, and in p(x_(t+1) | t), the
    result, x_(t+1).

    Args:
        log_prob: log p_model(x_(t+1) | t) of the targets, [batch, time].
        hidden: h_t [batch, time, units].
        targets: x_(t+1), int32 [batch, time].

    Source: Grave et al. 2016, arXiv:1612.04426, equations 2 and 3.
    """
    size, time = tf.shape(memory.words)[1], tf.shape(targets)[1]
    keys = tf.concat([memory.hidden, hidden], axis=1)  # [batch, size + time, units]
    words = tf.concat([memory.words, targets], axis=1)
    age = tf.range(size + time) - tf.range(time)[:, tf.newaxis]  # [time, size + time]; size - 1 is the newest
    seen = ((age >= 0) & (age < size))[tf.newaxis] & (words != EMPTY)[:, tf.newaxis]
    scores = flatness * tf.matmul(hidden, keys, transpose_b=True)  # [batch, time, size + time]
    total = _log_sum(scores, seen)
    same = seen & (words[:, tf.newaxis] == targets[..., tf.newaxis])
    of_both = tf.stack(
        [
            log_prob + tf.math.log(tf.constant(1.0 - weight, log_prob.dtype)),
            _log_sum(scores, same) - total + tf.math.log(tf.constant(weight, log_prob.dtype)),
        ]
    )
    mixed = tf.where(tf.math.is_finite(total), tf.reduce_logsumexp(of_both, axis=0), log_prob)
    return mixed, Memory(keys[:, time:], words[:, time:])


def _log_sum(scores: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    return tf.reduce_logsumexp(tf.where(where, scores, -float("inf")), axis=-1)
