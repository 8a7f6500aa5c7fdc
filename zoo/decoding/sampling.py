"""Drawing the next token."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from zoo.decoding.filters import FILTERS
from zoo.decoding.settings import Setting, checked

_BLOCK = 128  # of the probabilities that are summed at once

SETTINGS: dict[str, Setting] = {
    "temperature": Setting(tf.float32, 1.0, lambda t: tf.math.is_finite(t) & (t >= 0), "at least 0"),
    **{name: each.setting for name, each in FILTERS.items()},
}


class Sampling:
    """How the next token is drawn.

    The distribution is softmax(logits / temperature), to which the filters are applied in the order of
    zoo.decoding.filters.FILTERS. Temperature 0 takes the most probable token.

    Args:
        settings: of SETTINGS, a value a row [batch] or one for all [1]; what is not given has its default.
    """

    def __init__(self, **settings: Any):
        if unknown := settings.keys() - SETTINGS.keys():
            raise TypeError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(SETTINGS)}")
        self.settings = {name: settings.get(name, setting.row) for name, setting in SETTINGS.items()}

    def checked(self, batch_size: tf.Tensor) -> Sampling:
        """Broadcast from one row to the batch, with values out of range refused."""
        return Sampling(**checked(SETTINGS, self.settings, batch_size))

    def choose(self, logits: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Token ids int32 [batch], given logits [batch, vocabulary] and random numbers in [0, 1) [batch]."""
        greedy = tf.argmax(logits, axis=-1, output_type=tf.int32)
        temperature = self.settings["temperature"]
        is_greedy = tf.equal(temperature, 0)
        temperature = tf.where(is_greedy, 1.0, temperature)[:, tf.newaxis]
        # The largest becomes 0, so that a temperature near zero overflows towards "never", not infinity.
        scaled = (logits - tf.reduce_max(logits, axis=-1, keepdims=True)) / temperature
        probabilities = self._filtered(tf.nn.softmax(scaled))
        return tf.where(is_greedy, greedy, draw(probabilities, uniform))

    def _filtered(self, probabilities: tf.Tensor) -> tf.Tensor:
        """What the filters leave; one runs only where some row asks for it."""
        for name, (apply, setting) in FILTERS.items():
            value = self.settings[name]
            probabilities = tf.cond(
                tf.reduce_any(value != setting.default),
                functools.partial(apply, probabilities, value),
                functools.partial(tf.identity, probabilities),
            )
        return probabilities


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
