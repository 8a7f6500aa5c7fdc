"""Dynamic evaluation: a model goes on learning from the text that it is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

EPSILON = 1e-5


class DynamicEvaluation:
    """Changes a model's weights w by the gradient g of the mean loss of each segment that it has read.

        w <- w - learning_rate g / (RMS + epsilon) + min(decay RMS / mean RMS, 1) (w_0 - w)

    w_0 are the weights at the start, and RMS the root of the mean squares of each weight's gradients in
    training; without these, plain steps: w <- w - learning_rate g + decay (w_0 - w). The mean RMS is that of
    the tensors' means.

    Source: Krause et al. 2018, arXiv:1709.07432, section 5.
    """

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        learning_rate: float,
        decay: float,
        mean_squares: Sequence[tf.Tensor] | None = None,
    ):
        self.variables = list(variables)
        self.start = [tf.convert_to_tensor(variable) for variable in self.variables]
        if mean_squares is None:
            self.rates = [tf.constant(learning_rate, start.dtype) for start in self.start]
            self.decays = [tf.constant(decay, start.dtype) for start in self.start]
            return
        roots = [tf.sqrt(squares) for squares in mean_squares]
        mean = tf.reduce_mean([tf.reduce_mean(root) for root in roots])
        self.rates = [learning_rate / (root + EPSILON) for root in roots]
        self.decays = [tf.minimum(decay * root / mean, 1.0) for root in roots]

    def learn(self, gradients: Sequence[tf.Tensor]) -> None:
        parts = zip(self.variables, gradients, self.rates, self.decays, self.start, strict=True)
        for variable, gradient, rate, decay, start in parts:
            variable.assign_add(decay * (start - variable) - rate * tf.convert_to_tensor(gradient))

    def reset(self) -> None:
        """Back to the weights at the start."""
        for variable, start in zip(self.variables, self.start, strict=True):
            variable.assign(start)
