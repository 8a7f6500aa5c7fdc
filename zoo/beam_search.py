"""Beam search: the likeliest sequences, as far as a beam of hypotheses finds them, inside the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

MAX_BEAM_WIDTH = 32

NextLogits = Callable[[tf.Tensor, Any], tuple[tf.Tensor, Any]]

_IMPOSSIBLE = tf.float32.min


class Found(NamedTuple):
    """The hypotheses of each row, the best first; where there are fewer, log_prob is minus infinity."""

    ids: tf.Tensor  # int32 [batch, hypotheses, steps]; meaningless from `lengths` on
    lengths: tf.Tensor  # int32 [batch, hypotheses]: without the token that ended it
    log_prob: tf.Tensor  # float32 [batch, hypotheses], in nats; the end included

    @property
    def best(self) -> Found:
        """Of each row the best one alone: without the dimension of the hypotheses."""
        return Found(self.ids[:, 0], self.lengths[:, 0], self.log_prob[:, 0])


class _Beam(NamedTuple):
    """The hypotheses that go on, or candidates for them, each [batch, width]."""

    log_prob: tf.Tensor  # falling; _IMPOSSIBLE where there is no hypothesis
    token: tf.Tensor  # the last one
    ids: tf.Tensor  # [batch, width, steps so far]


class _Ended(NamedTuple):
    """The best hypotheses that have ended, [batch, hypotheses], and how many have."""

    score: tf.Tensor  # log_prob / penalty, falling; _IMPOSSIBLE where there is none
    log_prob: tf.Tensor
    length: tf.Tensor
    ids: tf.Tensor  # [batch, hypotheses, steps so far]
    count: tf.Tensor  # [batch]


def beam_search(
    next_logits: NextLogits,
    token: tf.Tensor,
    states: Any,
    beam_width: tf.Tensor,
    max_new_tokens: tf.Tensor,
    end_id: int | None,
    length_penalty: tf.Tensor | float = 0.0,
    hypotheses: tf.Tensor | int = 1,
    allowed: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> Found:
    """Of all hypotheses that end, those with the best log P(y) / ((5 + |y|) / 6)^length_penalty.

    At each step the `beam_width` best hypotheses are extended by each token. Those of the `beam_width`
    best extensions that end are done; of the others the best go on. A row is finished when as many
    hypotheses have ended as its beam is wide, or when none that goes on can become better than those asked
    for; at `max_new_tokens`, those that go on count as they are. With a beam of 1 this is greedy decoding.

    Args:
        next_logits: (token ids [n], states [n, ...]) -> (logits [n, vocabulary], new states).
        token, states: what precedes the first token, of each row: [batch], [batch, ...].
        beam_width, max_new_tokens: int32 [batch], each at least 1.
        end_id: the token that ends a hypothesis. |y| counts it. None: only the limit ends them.
        length_penalty: at least 0; of all rows, or [batch].
        hypotheses: how many are asked for, at most `beam_width`; of all rows, or [batch].
        allowed: gives log-probabilities [n, vocabulary] with those of forbidden tokens at minus infinity.

    Source: Wu et al. 2016, arXiv:1609.08144, equation 14, for the length penalty.
    """
    batch_size, width = tf.shape(token)[0], tf.reduce_max(beam_width)
    hypotheses = tf.broadcast_to(hypotheses, [batch_size])
    length_penalty = tf.broadcast_to(tf.cast(length_penalty, tf.float32), [batch_size])
    search = _Search(next_logits, beam_width, max_new_tokens, end_id, length_penalty, hypotheses, allowed)
    states = tf.nest.map_structure(lambda state: tf.repeat(state, width, axis=0), states)
    vector, matrix, cube = (tf.TensorShape([None] * rank) for rank in (1, 2, 3))
    _, _, ended, _ = tf.while_loop(
        lambda now, beam, ended, states: tf.reduce_any(beam.log_prob > _IMPOSSIBLE),
        search.step,
        (0, _begun(token, width), _nothing(batch_size, tf.reduce_max(hypotheses)), states),
        shape_invariants=(
            tf.TensorShape([]),
            _Beam(matrix, matrix, cube),
            _Ended(matrix, matrix, matrix, cube, vector),
            tf.nest.map_structure(lambda state: tf.TensorShape([None, *state.shape[1:]]), states),
        ),
    )
    is_found = (ended.score > _IMPOSSIBLE) & tf.sequence_mask(hypotheses, tf.shape(ended.score)[1])
    return Found(ended.ids, ended.length, tf.where(is_found, ended.log_prob, -float("inf")))


class _Search(NamedTuple):
    """The arguments of `beam_search`, and its steps."""

    next_logits: NextLogits
    beam_width: tf.Tensor
    max_new_tokens: tf.Tensor
    end_id: int | None
    length_penalty: tf.Tensor
    hypotheses: tf.Tensor
    allowed: Callable[[tf.Tensor], tf.Tensor]

    def step(self, now, beam, ended, states):
        candidates, came_from, states = self._extensions(beam, states)
        ended = ended._replace(ids=tf.pad(ended.ids, [[0, 0], [0, 0], [0, 1]]))
        possible = candidates.log_prob > _IMPOSSIBLE
        ends = possible & tf.equal(candidates.token, -1 if self.end_id is None else self.end_id)
        among_best = tf.range(tf.shape(ends)[1]) < self.beam_width[:, tf.newaxis]
        ended = self._with(ended, ends & among_best, candidates, now + 1, now)

        beam, place = self._best(candidates, possible & ~ends)
        at_limit = (now + 1 >= self.max_new_tokens)[:, tf.newaxis] & (beam.log_prob > _IMPOSSIBLE)
        ended = self._with(ended, at_limit, beam, now + 1, now + 1)
        finished = self._is_finished(now + 1, beam, ended)
        beam = beam._replace(log_prob=tf.where(finished[:, tf.newaxis], _IMPOSSIBLE, beam.log_prob))
        return now + 1, beam, ended, _of(states, tf.gather(came_from, place, batch_dims=1))

    def _extensions(self, beam, states):
        """The best hypotheses with one more token, which of the beam each comes from, and the new states.

        Twice as many as the beam is wide: of those of one hypothesis, one alone ends.
        """
        batch_size, width = tf.unstack(tf.shape(beam.token))
        logits, states = self.next_logits(tf.reshape(beam.token, [-1]), states)
        vocabulary = tf.shape(logits)[-1]
        log_prob = self.allowed(tf.nn.log_softmax(tf.cast(logits, tf.float32)))
        total = tf.reshape(log_prob, [batch_size, width, vocabulary]) + beam.log_prob[..., tf.newaxis]
        total = tf.maximum(tf.reshape(total, [batch_size, width * vocabulary]), _IMPOSSIBLE)
        total, place = tf.math.top_k(total, tf.minimum(2 * width, width * vocabulary))
        came_from, token = place // vocabulary, place % vocabulary
        ids = tf.gather(beam.ids, came_from, batch_dims=1)
        ids = tf.concat([ids, token[..., tf.newaxis]], axis=-1)
        return _Beam(total, token, ids), came_from, states

    def _best(self, candidates, is_possible):
        """The beam of those that go on, and their places among the candidates."""
        width = tf.reduce_max(self.beam_width)
        log_prob, place = tf.math.top_k(tf.where(is_possible, candidates.log_prob, _IMPOSSIBLE), width)
        log_prob = tf.where(tf.sequence_mask(self.beam_width, width), log_prob, _IMPOSSIBLE)
        token, ids = (tf.gather(each, place, batch_dims=1) for each in (candidates.token, candidates.ids))
        return _Beam(log_prob, token, ids), place

    def _with(self, ended, is_new, candidates, counted, length):
        """The best that have ended, some of the candidates among them; of equals the earlier ones.

        The length penalty is that of `counted` tokens, their number without the end is `length`.
        """
        score = tf.where(is_new, candidates.log_prob / self._penalty(counted)[:, tf.newaxis], _IMPOSSIBLE)
        news = (score, candidates.log_prob, tf.fill(tf.shape(score), length), candidates.ids)
        score, *others = (tf.concat(pair, axis=1) for pair in zip(ended[:4], news, strict=True))
        score, place = tf.math.top_k(score, tf.reduce_max(self.hypotheses))
        log_prob, lengths, ids = (tf.gather(each, place, batch_dims=1) for each in others)
        count = ended.count + tf.math.count_nonzero(is_new, axis=1, dtype=tf.int32)
        return _Ended(score, log_prob, lengths, ids, count)

    def _is_finished(self, steps, beam, ended):
        worst = tf.gather(ended.score, self.hypotheses - 1, batch_dims=1)  # of those asked for
        hopeless = beam.log_prob[:, 0] / self._penalty(self.max_new_tokens) <= worst
        return (steps >= self.max_new_tokens) | (ended.count >= self.beam_width) | hopeless

    def _penalty(self, length):
        """[batch], of so many tokens."""
        return ((5.0 + tf.cast(length, tf.float32)) / 6.0) ** self.length_penalty


def _begun(token, width):
    """A beam of one hypothesis, of no tokens."""
    batch_size = tf.shape(token)[0]
    log_prob = tf.one_hot(tf.zeros([batch_size], tf.int32), width, 0.0, _IMPOSSIBLE)
    return _Beam(
        log_prob, tf.repeat(token[:, tf.newaxis], width, axis=1), tf.zeros([batch_size, width, 0], tf.int32)
    )


def _nothing(batch_size, hypotheses):
    none = tf.fill([batch_size, hypotheses], _IMPOSSIBLE)
    zeros = tf.zeros([batch_size, hypotheses], tf.int32)
    return _Ended(none, none, zeros, zeros[..., tf.newaxis][..., :0], zeros[:, 0])


def _of(states, hypothesis):
    """The states [batch * width, ...] of the hypotheses [batch, width]."""
    batch_size, width = tf.unstack(tf.shape(hypothesis))
    places = tf.reshape(tf.range(batch_size)[:, tf.newaxis] * width + hypothesis, [-1])
    return tf.nest.map_structure(lambda state: tf.gather(state, places), states)
