"""From scores of tags at each step to the tags of a sequence: each by itself, or all together."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from zoo.spans import legal_moves

FORBIDDEN = -1e4  # added to a score: nothing is left of it in exp, and gradients stay finite


class TagDistribution(keras.layers.Layer):
    """P(tags of a sequence | scores).

    Shapes: scores [batch, time, tags], tags int32 [batch, time], mask bool [batch, time], whose padding
    is at the end; at least one step. Sequences that are all padding have the log-likelihood 0.
    """

    def __init__(self, tags: Sequence[str], **kwargs):
        super().__init__(**kwargs)
        self.tags = tuple(tags)

    def log_likelihood(self, scores: tf.Tensor, tags: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """log P(tags | scores) in nats, [batch]."""
        raise NotImplementedError

    def best(self, scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """The likeliest tags, int32 [batch, time]; 0 where there is padding."""
        raise NotImplementedError

    def marginals(self, scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """P(tag at t | scores), [batch, time, tags]; meaningless where there is padding."""
        raise NotImplementedError

    def get_config(self):
        return {**super().get_config(), "tags": self.tags}


@keras.saving.register_keras_serializable("zoo")
class IndependentTags(TagDistribution):
    """Each tag by itself: P(y | s) = prod_t softmax(s_t)[y_t]."""

    def build(self, scores_shape):
        pass

    def log_likelihood(self, scores, tags, mask):
        log_prob = tf.gather(tf.nn.log_softmax(scores), tags, batch_dims=2)
        return tf.reduce_sum(tf.where(mask, log_prob, 0), axis=1)

    def best(self, scores, mask):
        return tf.where(mask, tf.argmax(scores, axis=-1, output_type=tf.int32), 0)

    def marginals(self, scores, mask):
        return tf.nn.softmax(scores)


@keras.saving.register_keras_serializable("zoo")
class LinearChainCRF(TagDistribution):
    """All tags together: a linear-chain conditional random field.

        score(y) = first[y_1] + sum_t s_t[y_t] + sum_t moves[y_(t-1), y_t] + last[y_T]
        P(y | s) = exp(score(y)) / sum_y' exp(score(y'))

    Where tags mark spans (zoo.spans), sequences that are not legal have probability 0.

    Source: Lafferty, McCallum and Pereira 2001; over a bidirectional LSTM, Huang et al. 2015,
    arXiv:1508.01991, and Lample et al. 2016, arXiv:1603.01360, section 2.2.
    """

    def build(self, scores_shape):
        count = len(self.tags)
        self.first = self.add_weight(name="first", shape=(count,), initializer="zeros")
        self.moves = self.add_weight(name="moves", shape=(count, count), initializer="zeros")
        self.last = self.add_weight(name="last", shape=(count,), initializer="zeros")
        self._forbidden = [np.where(legal, 0.0, FORBIDDEN) for legal in legal_moves(self.tags)]

    def _weights(self) -> list[tf.Tensor]:
        """first, moves and last, with what is not legal forbidden."""
        return [
            tf.convert_to_tensor(weight) + tf.constant(forbidden, weight.dtype)
            for weight, forbidden in zip((self.first, self.moves, self.last), self._forbidden, strict=True)
        ]

    def log_likelihood(self, scores, tags, mask):
        first, moves, last = self._weights()
        emitted = tf.gather(scores, tags, batch_dims=2)  # [batch, time]
        moved = tf.gather_nd(moves, tf.stack([tags[:, :-1], tags[:, 1:]], axis=-1))
        ends = tf.gather(tags, self._last_step(mask), batch_dims=1)
        score = tf.gather(first, tags[:, 0]) + tf.gather(last, ends)
        score += tf.reduce_sum(tf.where(mask, emitted, 0), axis=1)
        score += tf.reduce_sum(tf.where(mask[:, 1:], moved, 0), axis=1)
        return tf.where(mask[:, 0], score - self._log_partition(self._forward(scores, mask)[-1]), 0)

    def best(self, scores, mask):
        """By the algorithm of Viterbi 1967."""
        first, moves, last = self._weights()

        def advance(carry, step):
            scores, kept = step
            paths = carry[0][:, :, tf.newaxis] + moves  # [batch, from, to]
            best = tf.reduce_max(paths, axis=1) + scores
            stay = tf.broadcast_to(tf.range(len(self.tags)), tf.shape(best))
            came_from = tf.where(kept, tf.argmax(paths, axis=1, output_type=tf.int32), stay)
            return tf.where(kept, best, carry[0]), came_from

        start = (first + scores[:, 0], tf.zeros(tf.shape(scores[:, 0]), tf.int32))
        best, came_from = tf.scan(advance, self._later_steps(scores, mask), start)
        tag = tf.argmax(best[-1] + last, axis=-1, output_type=tf.int32)
        tags = tf.scan(lambda tag, back: tf.gather(back, tag, batch_dims=1), came_from, tag, reverse=True)
        return tf.where(mask, tf.transpose(tags), 0)

    def marginals(self, scores, mask):
        """exp(alpha_t + beta_t) / sum: the forward and the backward recursion (Rabiner 1989)."""
        _, moves, last = self._weights()
        forward = self._forward(scores, mask)

        def retreat(beta, step):
            scores, kept = step  # of the step after
            earlier = tf.reduce_logsumexp(moves + (scores + beta)[:, tf.newaxis], axis=-1)
            return tf.where(kept, earlier, beta)

        end = tf.broadcast_to(last, tf.shape(scores[:, 0]))
        backward = tf.scan(retreat, self._later_steps(scores, mask), end, reverse=True)
        log_partition = self._log_partition(forward[-1])[:, tf.newaxis]
        return tf.transpose(tf.exp(forward[:-1] + backward - log_partition), [1, 0, 2])

    def _forward(self, scores, mask):
        """alpha_t: log of the sum over all tags before t, of exp(score up to t); [time + 1, batch, tags]."""
        first, moves, _ = self._weights()

        def advance(alpha, step):
            scores, kept = step
            later = tf.reduce_logsumexp(alpha[:, :, tf.newaxis] + moves, axis=1) + scores
            return tf.where(kept, later, alpha)

        start = first + scores[:, 0]
        rest = tf.scan(advance, self._later_steps(scores, mask), start)
        return tf.concat([start[tf.newaxis], rest], axis=0)

    def _log_partition(self, alpha):
        return tf.reduce_logsumexp(alpha + self._weights()[2], axis=-1)

    @staticmethod
    def _later_steps(scores, mask):
        """Scores and mask from the second step on, [time, batch, ...]; one more, of padding, is the last,
        since a scan over nothing has no shape."""
        scores, mask = scores[:, 1:], mask[:, 1:, tf.newaxis]
        padded = [tf.pad(part, [[0, 0], [0, 1], [0, 0]]) for part in (scores, mask)]
        return [tf.transpose(part, [1, 0, 2]) for part in padded]

    @staticmethod
    def _last_step(mask):
        return tf.maximum(tf.math.count_nonzero(mask, axis=1, dtype=tf.int32) - 1, 0)
