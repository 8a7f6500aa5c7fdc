"""Contrastive search: probable continuations that do not go back to where the text has been."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from zoo.decoding.generation import Generated
from zoo.decoding.stop_strings import NOWHERE

Advance = Callable[[tf.Tensor, Any], tuple[tf.Tensor, tf.Tensor, Any]]


class Context(NamedTuple):
    """What was read so far, to the last token."""

    logits: tf.Tensor  # [batch, vocabulary]: of the next token
    states: Any  # [batch, ...] each
    hidden: tf.Tensor  # [batch, time, units]: the last layer's output at each token
    is_token: tf.Tensor  # bool [batch, time]: false in padding


class _Rows(NamedTuple):
    done: tf.Tensor  # [batch], as the next two
    lengths: tf.Tensor
    log_prob: tf.Tensor
    ids: tf.Tensor  # [batch, steps so far]


def contrastive_search(
    advance: Advance,
    context: Context,
    max_new_tokens: tf.Tensor,
    top_k: tf.Tensor,
    alpha: tf.Tensor,
    allowed: Callable[[tf.Tensor], tf.Tensor],
    end_id: int | None = None,
) -> Generated:
    """Each token is, of the `top_k` most probable ones v after the tokens x_<t, the one with the largest

        (1 - alpha) P(v | x_<t) - alpha max_(j<t) cos(h_v, h_j)

    where h_j is the last layer's output at token j of the prompt or the text, and h_v what it would be at v.

    Args:
        advance: (token ids [n], states [n, ...]) -> (hidden [n, units], logits [n, vocabulary], new states).
        context: the prompt, read to its end.
        max_new_tokens, top_k: int32 [batch]; top_k at least 1.
        alpha: float32 [batch], from 0 (greedy search) to 1.
        allowed: gives logits with those of forbidden tokens at minus infinity.
        end_id: choosing this token ends a row.

    Source: Su et al. 2022, arXiv:2202.06417, equation 5.
    """
    most = tf.minimum(tf.reduce_max(top_k), tf.shape(context.logits)[1])
    is_candidate = tf.sequence_mask(tf.minimum(top_k, most), most)
    alpha = alpha[:, tf.newaxis]

    def body(context, rows):
        probability, candidates = tf.math.top_k(tf.nn.softmax(allowed(context.logits)), most)
        hidden, *after = _each_read(advance, context.states, candidates)
        hidden = tf.math.l2_normalize(hidden, axis=-1)
        score = (1 - alpha) * probability - alpha * _similarity(hidden, context)
        # Where fewer tokens are allowed than there are candidates, the others have no probability.
        score = tf.where(is_candidate & (probability > 0), score, -float("inf"))
        choice = tf.argmax(score, axis=1, output_type=tf.int32)
        token, hidden, logits, states = tf.nest.map_structure(
            lambda each: tf.gather(each, choice, batch_dims=1), (candidates, hidden, *after)
        )
        rows = _advanced(rows, context.logits, token, max_new_tokens, end_id)
        return _extended(context, logits, states, hidden), rows

    context = context._replace(hidden=tf.math.l2_normalize(context.hidden, axis=-1))
    rows = _at_first(max_new_tokens)
    _, rows = tf.while_loop(
        lambda _, rows: ~tf.reduce_all(rows.done),
        body,
        (context, rows),
        shape_invariants=_shapes(context),
    )
    stop = tf.fill(tf.shape(rows.lengths), NOWHERE)
    return Generated(rows.ids, rows.lengths, rows.log_prob, stop)


def _each_read(advance, states, candidates):
    """Hidden, logits and states, [batch, candidates, ...], after each of the candidates."""
    batch_size, count = tf.unstack(tf.shape(candidates))
    repeated = tf.nest.map_structure(lambda state: tf.repeat(state, count, axis=0), states)
    after = advance(tf.reshape(candidates, [-1]), repeated)
    return tf.nest.map_structure(lambda each: tf.reshape(each, [batch_size, count, *each.shape[1:]]), after)


def _similarity(hidden, context):
    """The largest cosine of each candidate [batch, candidates, units], with any token of the context."""
    cosine = tf.matmul(hidden, context.hidden, transpose_b=True)  # [batch, candidates, time]
    cosine = tf.where(context.is_token[:, tf.newaxis], cosine, -float("inf"))
    return tf.reduce_max(cosine, axis=2)


def _at_first(max_new_tokens):
    zeros = tf.zeros_like(max_new_tokens)
    return _Rows(max_new_tokens <= 0, zeros, tf.cast(zeros, tf.float32), zeros[:, tf.newaxis][:, :0])


def _advanced(rows, logits, token, max_new_tokens, end_id):
    """The rows with one more token, which was drawn from these logits."""
    gained = tf.gather(tf.nn.log_softmax(logits), token, batch_dims=1)
    lengths = tf.where(rows.done, rows.lengths, rows.lengths + 1)
    done = rows.done | (lengths >= max_new_tokens)
    if end_id is not None:
        done |= tf.equal(token, end_id)
    log_prob = rows.log_prob + tf.where(rows.done, 0.0, gained)
    return _Rows(done, lengths, log_prob, tf.concat([rows.ids, token[:, tf.newaxis]], axis=1))


def _extended(context, logits, states, hidden):
    """The context with one more token."""
    one_more = tf.ones_like(context.is_token[:, :1])
    return Context(
        logits,
        states,
        tf.concat([context.hidden, hidden[:, tf.newaxis]], axis=1),
        tf.concat([context.is_token, one_more], axis=1),
    )


def _shapes(context):
    """Of the loop's variables: batch and time are open, units are known."""
    vector, matrix = tf.TensorShape([None]), tf.TensorShape([None, None])
    states = tf.nest.map_structure(lambda state: tf.TensorShape([None, *state.shape[1:]]), context.states)
    hidden = tf.TensorShape([None, None, context.hidden.shape[2]])
    return Context(matrix, states, hidden, matrix), _Rows(vector, vector, vector, matrix)
