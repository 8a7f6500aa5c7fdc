"""Beam search: the likeliest sequences, as far as a beam of hypotheses finds them, inside the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

MAX_BEAM_WIDTH = 32

NextLogits = Callable[[tf.Tensor, Any], tuple[tf.Tensor, Any]]


class Found(NamedTuple):
    """The best hypothesis of each row."""

    ids: tf.Tensor  # int32 [batch, steps]; meaningless from `lengths` on
    lengths: tf.Tensor  # int32 [batch]: without the token that ended it
    log_prob: tf.Tensor  # float32 [batch], in nats; the end included


class _Beam(NamedTuple):
    log_prob: tf.Tensor  # [batch, width], falling; minus infinity where there is no hypothesis
    token: tf.Tensor  # [batch, width]: the last one
    ids: tf.Tensor  # [batch, width, steps so far]


class _Best(NamedTuple):
    """The best hypothesis that has ended, and how many have."""

    score: tf.Tensor  # [batch]: log_prob / penalty
    log_prob: tf.Tensor
    length: tf.Tensor
    ids: tf.Tensor  # [batch, steps so far]
    count: tf.Tensor


def beam_search(
    next_logits: NextLogits,
    token: tf.Tensor,
    states: Any,
    beam_width: tf.Tensor,
    max_new_tokens: tf.Tensor,
    end_id: int,
    length_penalty: float = 0.0,
) -> Found:
    """Of all hypotheses that end, the one with the best log P(y) / ((5 + |y|) / 6)^length_penalty.

    At each step the `beam_width` best hypotheses are extended by each token. Those of the `beam_width`
    best extensions that end are done; of the others the best go on. A row is finished when as many
    hypotheses have ended as its beam is wide, or when none that goes on can become better than the best;
    at `max_new_tokens`, those that go on count as they are. With a beam of 1 this is greedy decoding.

    Args:
        next_logits: (token ids [n], states [n, ...]) -> (logits [n, vocabulary], new states).
        token, states: what precedes the first token, of each row: [batch], [batch, ...].
        beam_width, max_new_tokens: int32 [batch], each at least 1.
        end_id: the token that ends a hypothesis. |y| counts it.

    Source: Wu et al. 2016, arXiv:1609.08144, equation 14, for the length penalty.
    """
    batch_size, width = tf.shape(token)[0], tf.reduce_max(beam_width)
    in_beam = tf.sequence_mask(beam_width, width)  # [batch, width]
    impossible = tf.float32.min

    def penalty(length):
        return ((5.0 + tf.cast(length, tf.float32)) / 6.0) ** length_penalty

    def body(now, beam, best, states):
        logits, states = next_logits(tf.reshape(beam.token, [-1]), states)
        vocabulary = tf.shape(logits)[-1]
        log_prob = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        total = tf.reshape(log_prob, [batch_size, width, vocabulary]) + beam.log_prob[..., tf.newaxis]
        total = tf.maximum(tf.reshape(total, [batch_size, width * vocabulary]), impossible)
        total, place = tf.math.top_k(total, tf.minimum(2 * width, width * vocabulary))
        came_from, chosen = place // vocabulary, place % vocabulary
        ids = tf.gather(beam.ids, came_from, batch_dims=1)
        ids = tf.concat([ids, chosen[..., tf.newaxis]], axis=-1)  # [batch, candidates, now + 1]
        possible = total > impossible
        ends = possible & tf.equal(chosen, end_id)
        among_best = tf.range(tf.shape(total)[1]) < beam_width[:, tf.newaxis]

        best = best._replace(ids=tf.pad(best.ids, [[0, 0], [0, 1]]))
        done = ends & among_best
        best = _better(best, done, total, ids, now + 1, now, penalty)

        going_on = tf.where(possible & ~ends, total, impossible)
        kept_log_prob, kept = tf.math.top_k(going_on, width)
        kept_log_prob = tf.where(in_beam, kept_log_prob, impossible)
        beam = _Beam(kept_log_prob, tf.gather(chosen, kept, batch_dims=1), tf.gather(ids, kept, batch_dims=1))
        at_limit = (now + 1 >= max_new_tokens)[:, tf.newaxis] & (beam.log_prob > impossible)
        best = _better(best, at_limit, beam.log_prob, beam.ids, now + 1, now + 1, penalty)
        hopeless = beam.log_prob[:, 0] / penalty(max_new_tokens) <= best.score
        finished = (now + 1 >= max_new_tokens) | (best.count >= beam_width) | hopeless
        beam = beam._replace(log_prob=tf.where(finished[:, tf.newaxis], impossible, beam.log_prob))
        row = tf.range(batch_size)[:, tf.newaxis] * width
        origin = tf.reshape(row + tf.gather(came_from, kept, batch_dims=1), [-1])
        states = tf.nest.map_structure(lambda state: tf.gather(state, origin), states)
        return now + 1, beam, best, states

    first = tf.one_hot(tf.zeros([batch_size], tf.int32), width, 0.0, impossible)
    nothing = tf.zeros([batch_size, 0], tf.int32)
    beam = _Beam(
        first, tf.repeat(token[:, tf.newaxis], width, axis=1), tf.zeros([batch_size, width, 0], tf.int32)
    )
    none = tf.fill([batch_size], impossible)
    zeros = tf.zeros([batch_size], tf.int32)
    best = _Best(none, none, zeros, nothing, zeros)
    states = tf.nest.map_structure(lambda state: tf.repeat(state, width, axis=0), states)
    vector, matrix = tf.TensorShape([None]), tf.TensorShape([None, None])
    _, _, best, _ = tf.while_loop(
        lambda now, beam, best, states: tf.reduce_any(beam.log_prob > impossible),
        body,
        (0, beam, best, states),
        shape_invariants=(
            tf.TensorShape([]),
            _Beam(matrix, matrix, tf.TensorShape([None, None, None])),
            _Best(vector, vector, vector, matrix, vector),
            tf.nest.map_structure(lambda state: tf.TensorShape([None, *state.shape[1:]]), states),
        ),
    )
    return Found(best.ids, best.length, best.log_prob)


def _better(best, candidate, log_prob, ids, counted, length, penalty):
    """The best of `best` and the candidates: bool, float [batch, n], int32 [batch, n, steps]."""
    scores = tf.where(candidate, log_prob / penalty(counted), tf.float32.min)
    place = tf.argmax(scores, axis=1, output_type=tf.int32)
    score = tf.gather(scores, place, batch_dims=1)
    wins = score > best.score
    return _Best(
        tf.where(wins, score, best.score),
        tf.where(wins, tf.gather(log_prob, place, batch_dims=1), best.log_prob),
        tf.where(wins, length, best.length),
        tf.where(wins[:, tf.newaxis], tf.gather(ids, place, batch_dims=1), best.ids),
        best.count + tf.math.count_nonzero(candidate, axis=1, dtype=tf.int32),
    )
