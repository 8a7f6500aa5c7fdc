"""Choosing the next token, and repeating it: decoding inside the graph.

Every row has its own settings and its own stream of random numbers, so that what a row becomes does
not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

_BLOCK = 128  # of the probabilities that are summed at once


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
        return tf.where(is_greedy, greedy, draw(probabilities, uniform))

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


def draw(probabilities: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Ids int32 [batch]: whose stretch of the cumulative distribution [batch, count] holds the random number.

    First the block that holds it, then the place within: a cumulative sum is slow, a plain one is not.
    """
    padded = tf.pad(probabilities, [[0, 0], [0, -tf.shape(probabilities)[1] % _BLOCK]])
    blocks = tf.reshape(padded, [tf.shape(padded)[0], -1, _BLOCK])
    block, uniform = _place(tf.reduce_sum(blocks, axis=2), uniform)
    place, _ = _place(tf.gather(blocks, block, batch_dims=1), uniform)
    return block * _BLOCK + place


def _place(masses: tf.Tensor, uniform: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Which of the stretches of a row is the random number's, and how far into it, in [0, 1)."""
    cumulative = tf.cumsum(masses, axis=1)
    threshold = uniform * cumulative[:, -1]
    place = tf.reduce_sum(tf.cast(cumulative <= threshold[:, tf.newaxis], tf.int32), axis=1)
    end, mass = (tf.gather(values, place, batch_dims=1) for values in (cumulative, masses))
    # Rounding may not lead beyond the stretch: what follows might have no probability.
    return place, tf.clip_by_value(1 - (end - threshold) / mass, 0.0, 1 - 2.0**-23)


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
