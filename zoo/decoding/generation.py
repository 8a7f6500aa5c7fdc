"""Repeated sampling: each drawn token is the next step's input."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from zoo.decoding.rules import Rule
from zoo.decoding.sampling import Sampling
from zoo.decoding.stop_strings import NOWHERE, StopStrings

NextLogits = Callable[[tf.Tensor, Any], tuple[tf.Tensor, Any]]


class Generated(NamedTuple):
    """What repeated sampling gave, a row [batch] or [batch, steps] each."""

    ids: tf.Tensor  # int32 [batch, steps]; meaningless from `lengths` on
    lengths: tf.Tensor  # int32 [batch]: how many tokens were drawn
    log_prob: tf.Tensor  # float32 [batch]: of the drawn tokens under the model, in nats
    stop: tf.Tensor  # int32 [batch]: the byte of the text where a stop string begins, or NOWHERE


class Limits(NamedTuple):
    """What ends a text, beside the token that does."""

    max_new_tokens: tf.Tensor  # int32 [batch]
    stop: StopStrings | None = None
    piece: Callable[[tf.Tensor], tf.Tensor] | None = None  # the bytes of ids, for the stop strings


class _Row(NamedTuple):
    """How far the rows are, [batch] each."""

    done: tf.Tensor
    lengths: tf.Tensor
    log_prob: tf.Tensor
    text: tf.Tensor  # written so far, where there are stop strings to be looked for
    stop: tf.Tensor


def generate(
    next_logits: NextLogits,
    token: tf.Tensor,
    states: Any,
    limits: Limits,
    sampling: Sampling,
    random: tf.Tensor,
    allowed: Callable[[tf.Tensor], tf.Tensor],
    end_id: int | None = None,
    rules: Sequence[tuple[Rule, tf.Tensor]] = (),
) -> Generated:
    """Repeated sampling: each drawn token is the next step's input.

    Args:
        next_logits: (token ids [batch], states) -> (logits [batch, vocabulary], new states).
        token, states: the last token of the prompt and the states before it.
        random: numbers in [0, 1), [batch, at least max(max_new_tokens)].
        allowed: gives logits with those of forbidden tokens at minus infinity.
        end_id: drawing this token ends a row.
        rules: each with its memory after the prompt. They come before `allowed`, that before the sampling.
    """

    def body(now, token, states, memories, row, ids):
        logits, states = next_logits(token, states)
        changed = allowed(_ruled(rules, logits, memories))
        token = sampling.choose(changed, random[:, now])
        row = _advanced(row, limits, now, token, logits, changed, end_id)
        return now + 1, token, states, _read(rules, memories, token), row, ids.write(now + 1, token)

    zeros = tf.zeros_like(token)
    row = _Row(
        limits.max_new_tokens <= 0,
        zeros,
        tf.cast(zeros, tf.float32),
        tf.fill(tf.shape(zeros), ""),
        zeros + NOWHERE,
    )
    # The prompt's last token comes first, since an array without elements cannot be stacked.
    ids = tf.TensorArray(tf.int32, size=1, dynamic_size=True, element_shape=[None]).write(0, token)
    *_, row, ids = tf.while_loop(
        lambda now, token, states, memories, row, ids: ~tf.reduce_all(row.done),
        body,
        (0, token, states, tuple(memory for _, memory in rules), row, ids),
    )
    return Generated(tf.transpose(ids.stack()[1:]), row.lengths, row.log_prob, row.stop)


def _ruled(rules, logits, memories):
    for (rule, _), memory in zip(rules, memories, strict=True):
        logits = tf.cond(
            rule.is_used,
            functools.partial(rule.apply, logits, memory),
            functools.partial(tf.identity, logits),
        )
    return logits


def _read(rules, memories, token):
    return tuple(
        tf.cond(
            rule.is_used,
            functools.partial(rule.read, memory, token),
            functools.partial(tf.identity, memory),
        )
        for (rule, _), memory in zip(rules, memories, strict=True)
    )


def _advanced(row, limits, now, token, logits, changed, end_id):
    """The rows after a token, drawn from the changed logits. One that is impossible was none."""
    done = row.done | tf.math.is_inf(tf.gather(changed, token, batch_dims=1))
    gained = tf.gather(tf.nn.log_softmax(logits), token, batch_dims=1)
    lengths = tf.where(done, row.lengths, now + 1)
    text, stop = row.text, row.stop
    if limits.stop is not None:
        text, stop = tf.cond(
            limits.stop.is_used, lambda: _searched(row, limits, done, token, end_id), lambda: (text, stop)
        )
    ends = (lengths >= limits.max_new_tokens) | (stop != NOWHERE)
    if end_id is not None:
        ends |= tf.equal(token, end_id)
    return _Row(done | ends, lengths, row.log_prob + tf.where(done, 0.0, gained), text, stop)


def _searched(row, limits, done, token, end_id):
    """Text and stop after a token."""
    silent = done if end_id is None else done | tf.equal(token, end_id)
    piece = tf.where(silent, "", limits.piece(token))
    text = tf.strings.join([row.text, piece])
    return text, tf.where(silent, row.stop, limits.stop.find(text, piece))
