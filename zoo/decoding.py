"""Choosing the next token, and repeating it: decoding inside the graph.

Every row has its own settings and its own stream of random numbers, so that what a row becomes does
not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf


class Sampling(NamedTuple):
    """How the next token is drawn, a value a row [batch].

    The distribution is softmax(logits / temperature), cut to the `top_k` most probable tokens
    (0: all; Fan et al. 2018, arXiv:1805.04833), then to the smallest set of the most probable tokens
    that together reach `top_p` (1: all; Holtzman et al. 2020, arXiv:1904.09751). Temperature 0
    takes the most probable token.
    """

    temperature: tf.Tensor  # float32
    top_k: tf.Tensor  # int32
    top_p: tf.Tensor  # float32

    def checked(self, batch_size: tf.Tensor) -> Sampling:
        """Broadcast from one row to the batch, with values out of range refused."""
        temperature, top_k, top_p = (rows(setting, batch_size) for setting in self)
        checks = [
            require(tf.math.is_finite(temperature) & (temperature >= 0), "temperature must be at least 0"),
            require(top_k >= 0, "top_k must be at least 0 (0: all tokens)"),
            require((top_p > 0) & (top_p <= 1), "top_p must be above 0 and at most 1 (1: all tokens)"),
        ]
        with tf.control_dependencies(checks):
            return Sampling(tf.identity(temperature), tf.identity(top_k), tf.identity(top_p))

    def choose(self, logits: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Token ids int32 [batch], given logits [batch, vocabulary] and random numbers in [0, 1) [batch]."""
        greedy = tf.argmax(logits, axis=-1, output_type=tf.int32)
        is_greedy = tf.equal(self.temperature, 0)
        temperature = tf.where(is_greedy, tf.ones_like(self.temperature), self.temperature)[:, tf.newaxis]
        # The largest becomes 0, so that a temperature near zero overflows towards "never", not infinity.
        scaled = (logits - tf.reduce_max(logits, axis=-1, keepdims=True)) / temperature
        probabilities = tf.cond(
            tf.reduce_any((self.top_k > 0) | (self.top_p < 1)),
            lambda: self._cut(tf.nn.softmax(scaled)),
            lambda: tf.nn.softmax(scaled),
        )
        # The token whose stretch of the cumulative distribution holds the random number.
        cumulative = tf.cumsum(probabilities, axis=-1)
        threshold = uniform[:, tf.newaxis] * cumulative[:, -1:]
        drawn = tf.reduce_sum(tf.cast(cumulative <= threshold, tf.int32), axis=-1)
        return tf.where(is_greedy, greedy, drawn)

    def _cut(self, probabilities):
        order = tf.argsort(probabilities, axis=-1, direction="DESCENDING", stable=True)
        ranked = tf.gather(probabilities, order, batch_dims=1)
        rank = tf.range(tf.shape(ranked)[1])[tf.newaxis]
        among_top_k = (self.top_k[:, tf.newaxis] == 0) | (rank < self.top_k[:, tf.newaxis])
        before = tf.cumsum(tf.where(among_top_k, ranked, 0.0), axis=-1, exclusive=True)
        mass = tf.reduce_sum(tf.where(among_top_k, ranked, 0.0), axis=-1, keepdims=True)
        # At top_p = 1 nothing is cut, whatever the sum was rounded to.
        top_p = tf.where(self.top_p < 1, self.top_p, 2.0)[:, tf.newaxis]
        kept = among_top_k & ((rank == 0) | (before < top_p * mass))
        place = tf.argsort(order, axis=-1)
        return tf.where(tf.gather(kept, place, batch_dims=1), probabilities, 0.0)


def rows(setting: tf.Tensor, batch_size: tf.Tensor) -> tf.Tensor:
    """Broadcast a setting of one row [1, ...] to the batch; one of the batch's size stays as it is."""
    return tf.broadcast_to(setting, tf.concat([[batch_size], tf.shape(setting)[1:]], 0))


def uniforms(seed: tf.Tensor, batch_size: tf.Tensor, count: int) -> tf.Tensor:
    """Random numbers in [0, 1), [batch, count], from a seed a row, int32 [batch, 2] or [1, 2].

    The seed (-1, -1) asks for fresh randomness; the same other seed gives the same numbers.
    """
    seed = rows(seed, batch_size)
    # Not tf.random.uniform: an export would keep the global seed of the program that made it.
    fresh = tf.raw_ops.RandomUniformInt(shape=tf.shape(seed), minval=0, maxval=tf.int32.max)
    seed = tf.where(tf.reduce_all(tf.equal(seed, -1), axis=1, keepdims=True), fresh, seed)
    return tf.map_fn(
        lambda row: tf.random.stateless_uniform([count], row),
        seed,
        fn_output_signature=tf.TensorSpec([count], tf.float32),
    )


class Generated(NamedTuple):
    """What repeated sampling gave, a row [batch] or [batch, steps] each."""

    ids: tf.Tensor  # int32 [batch, steps]; meaningless from `lengths` on
    lengths: tf.Tensor  # int32 [batch]: how many tokens were drawn
    log_prob: tf.Tensor  # float32 [batch]: of the drawn tokens under the model, in nats


NextLogits = Callable[[tf.Tensor, Any], tuple[tf.Tensor, Any]]


def generate(
    next_logits: NextLogits,
    token: tf.Tensor,
    states: Any,
    max_new_tokens: tf.Tensor,
    sampling: Sampling,
    random: tf.Tensor,
    allowed: Callable[[tf.Tensor], tf.Tensor],
    end_id: int | None = None,
) -> Generated:
    """Repeated sampling: each drawn token is the next step's input.

    Args:
        next_logits: (token ids [batch], states) -> (logits [batch, vocabulary], new states).
        token, states: the last token of the prompt and the states before it.
        max_new_tokens: int32 [batch].
        random: numbers in [0, 1), [batch, at least max(max_new_tokens)].
        allowed: gives logits with those of forbidden tokens at minus infinity.
        end_id: drawing this token ends a row.
    """

    def body(now, token, states, done, lengths, log_prob, ids):
        logits, states = next_logits(token, states)
        token = sampling.choose(allowed(logits), random[:, now])
        gained = tf.gather(tf.nn.log_softmax(logits), token, batch_dims=1)
        log_prob += tf.where(done, 0.0, gained)
        lengths = tf.where(done, lengths, now + 1)
        done |= lengths >= max_new_tokens
        if end_id is not None:
            done |= tf.equal(token, end_id)
        return now + 1, token, states, done, lengths, log_prob, ids.write(now + 1, token)

    zeros = tf.zeros_like(token)
    # The prompt's last token comes first, since an array without elements cannot be stacked.
    ids = tf.TensorArray(tf.int32, size=1, dynamic_size=True, element_shape=[None]).write(0, token)
    _, _, _, _, lengths, log_prob, ids = tf.while_loop(
        lambda now, token, states, done, *_: ~tf.reduce_all(done),
        body,
        (0, token, states, max_new_tokens <= 0, zeros, tf.cast(zeros, tf.float32), ids),
    )
    return Generated(tf.transpose(ids.stack()[1:]), lengths, log_prob)


def require(condition: tf.Tensor, message: str) -> tf.Operation:
    """An operation that fails with the message unless all of the condition holds."""
    return tf.debugging.Assert(tf.reduce_all(condition), [message])
