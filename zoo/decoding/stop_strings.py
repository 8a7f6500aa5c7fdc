"""Texts that end where one of the caller's strings begins."""

from __future__ import annotations

import tensorflow as tf

NOWHERE = -1


class StopStrings:
    """Looks for strings in the text of each row as it is written.

    All is bytes: a stop string may begin and end inside a token. The text is searched after each token,
    and of several strings found at once the one that begins first counts. The prompt is no part of it.
    """

    def __init__(self, strings: tf.Tensor):
        """string [batch, count]; empty ones are none."""
        self._strings = strings[:, :, tf.newaxis]  # [batch, count, 1]
        self.is_used = tf.reduce_any(strings != "")

    def find(self, text: tf.Tensor, piece: tf.Tensor) -> tf.Tensor:
        """Where a stop string begins that ends within the last piece, int32 [batch]; NOWHERE if none does.

        `text` string [batch] ends with `piece`. Positions are in bytes.
        """
        left = tf.range(tf.reduce_max(tf.strings.length(piece)))  # bytes after the string's end
        size = tf.strings.length(self._strings)
        start = tf.strings.length(text)[:, tf.newaxis, tf.newaxis] - size - left  # [batch, count, left]
        is_new = left < tf.strings.length(piece)[:, tf.newaxis, tf.newaxis]
        possible = (size > 0) & (start >= 0) & is_new
        shape = tf.shape(start)
        found = tf.strings.substr(
            tf.broadcast_to(text[:, tf.newaxis, tf.newaxis], shape),
            tf.maximum(start, 0),
            tf.broadcast_to(size, shape),
        )
        start = tf.where(possible & (found == self._strings), start, tf.int32.max)
        first = tf.reduce_min(start, axis=[1, 2])
        return tf.where(first == tf.int32.max, NOWHERE, first)
