"""Averages of weights over the steps of training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import accumulate

import keras
import tensorflow as tf


def averaging_start(history: Sequence[float], patience: int) -> int | None:
    """The evaluation, counted from 0, after which weights are averaged; None: none so far.

    It is the first one t > patience that is worse than the best of those up to t - patience - 1: the
    non-monotonic trigger of Merity et al. 2017, arXiv:1708.02182, algorithm 1. `history` holds the losses.
    """
    best = list(accumulate(history, min))
    late = range(patience + 1, len(history))
    return next((t for t in late if history[t] > best[t - patience - 1]), None)


class WeightAverage:
    """The mean of weights over the points of time at which it was told to include them.

    With plain SGD before and after, averaged stochastic gradient descent (Polyak and Juditsky 1992).
    """

    def __init__(self, variables: Sequence[keras.Variable]):
        self.weights = [variable.value for variable in variables]
        self.variables = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in self.weights]

    @tf.function(autograph=False, reduce_retracing=True)
    def include(self, count: tf.Tensor) -> None:
        """Take in the weights as they are, the count-th from 1: mean <- mean + (w - mean) / count."""
        for mean, weight in zip(self.variables, self.weights, strict=True):
            mean.assign_add((weight - mean) / tf.cast(count, mean.dtype))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the weights are the mean."""
        kept = [tf.identity(weight) for weight in self.weights]
        self._assign(self.variables)
        try:
            yield
        finally:
            self._assign(kept)

    def _assign(self, values: Sequence[tf.Tensor | tf.Variable]) -> None:
        for weight, value in zip(self.weights, values, strict=True):
            weight.assign(value)
