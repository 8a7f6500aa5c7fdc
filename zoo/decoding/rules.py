"""What may follow depends on all that was said: rules that remember the tokens of a row.

The memory of a rule is a tensor, carried through the loop; of a rule that no row asks for it is empty.
"""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf

NONE = -1  # in place of a token


class Rule(Protocol):
    """Changes the logits of the next token by what came before it."""

    is_used: tf.Tensor  # bool: whether any row asks for it

    def start(self, tokens: tf.RaggedTensor) -> tf.Tensor:
        """The memory after the prompts, int32 [batch, (tokens)]."""

    def apply(self, logits: tf.Tensor, memory: tf.Tensor) -> tf.Tensor:
        """The logits [batch, vocabulary] of the next token, changed."""

    def read(self, memory: tf.Tensor, token: tf.Tensor) -> tf.Tensor:
        """The memory after one more token, int32 [batch]."""


class RepetitionPenalty:
    """Makes each token that the prompt or the text has already less probable.

        logit / penalty where the logit is above 0, logit * penalty elsewhere

    Source: Keskar et al. 2019, arXiv:1909.05858, section 4.1. Differs from the paper: it divides logits below
    0, too, which makes those tokens more probable.
    """

    def __init__(self, penalty: tf.Tensor, vocabulary_size: int):
        """`penalty` float32 [batch]; 1: none."""
        self.penalty = penalty[:, tf.newaxis]
        self.is_used = tf.reduce_any(penalty != 1)
        self._width = tf.where(self.is_used, vocabulary_size, 0)

    def start(self, tokens: tf.RaggedTensor) -> tf.Tensor:
        """Which tokens there were, bool [batch, vocabulary]."""
        seen = tf.zeros([tokens.nrows(), self._width], tf.bool)
        return tf.cond(
            self.is_used, lambda: _marked(seen, tokens.value_rowids(), tokens.flat_values), lambda: seen
        )

    def apply(self, logits: tf.Tensor, memory: tf.Tensor) -> tf.Tensor:
        penalized = tf.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return tf.where(memory, penalized, logits)

    def read(self, memory: tf.Tensor, token: tf.Tensor) -> tf.Tensor:
        return _marked(memory, tf.range(tf.shape(token)[0]), token)


class BadWords:
    """Sequences of tokens that never occur: the last token of each is impossible after the others.

    The prompt's tokens count, too. Where nothing is left that may follow, the text ends.
    """

    def __init__(self, sequences: tf.Tensor):
        """int32 [batch, count, length], padded in front with NONE; one of NONE alone forbids nothing."""
        self._sequences = sequences
        self.is_used = tf.reduce_any(sequences != NONE)

    def start(self, tokens: tf.RaggedTensor) -> tf.Tensor:
        """The last tokens, int32 [batch, length - 1]."""
        return last_tokens(tokens, tf.shape(self._sequences)[2] - 1)

    def apply(self, logits: tf.Tensor, memory: tf.Tensor) -> tf.Tensor:
        before, last = self._sequences[..., :-1], self._sequences[..., -1]
        follows = tf.reduce_all((before == NONE) | (before == memory[:, tf.newaxis]), axis=2)
        bound = tf.where(follows & (last != NONE), -float("inf"), float("inf"))  # [batch, count]
        rows = tf.broadcast_to(tf.range(tf.shape(last)[0])[:, tf.newaxis], tf.shape(last))
        return tf.tensor_scatter_nd_min(logits, tf.stack([rows, tf.maximum(last, 0)], axis=2), bound)

    def read(self, memory: tf.Tensor, token: tf.Tensor) -> tf.Tensor:
        return tf.concat([memory, token[:, tf.newaxis]], axis=1)[:, 1:]


def last_tokens(tokens: tf.RaggedTensor, count: tf.Tensor) -> tf.Tensor:
    """The last ones of each row [batch, (tokens)]: [batch, count], NONE in front where there are fewer."""
    padding = tf.fill([tokens.nrows(out_type=tf.int32), count], NONE)
    padded = tf.concat([padding, tokens.to_tensor(NONE)], axis=1)
    lengths = tf.cast(tokens.row_lengths(), tf.int32)
    return tf.gather(padded, lengths[:, tf.newaxis] + tf.range(count), batch_dims=1)


def _marked(seen, rows, columns):
    places = tf.stack([tf.cast(rows, tf.int32), columns], axis=1)
    return tf.tensor_scatter_nd_update(seen, places, tf.ones(tf.shape(columns), tf.bool))
