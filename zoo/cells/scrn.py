"""The structurally constrained recurrent network."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.base import Cell
from zoo.cells.weights import independent


@keras.saving.register_keras_serializable("zoo")
class SCRN(Cell):
    """A simple recurrent network beside slow context units.

        s = (1 - alpha) * B x + alpha * s_prev              context: an exponential average of inputs
        h = sigma(P s + R h_prev + A x + b)                 hidden
        output = [h, s]

    States: hidden h [units], context s [context_units]. The output is both, so that the layer on top
    computes U h + V s as in the paper; its size is units + context_units. B is the weight
    `context_input_kernel` [features, context_units], P `context_kernel` [context_units, units].

    Args:
        context_units: number of context units, as many as `units` by default.
        alpha: how much of the context is kept, fixed.

    Differs from the paper: a bias b, which starts at zero. The "adaptive" context with an alpha learnt
    for each unit, of which the paper reports no gain beside hidden units, is left out.

    Source: Mikolov et al. 2014, arXiv:1412.7753, equations 4 to 6.
    """

    STATES = ("hidden", "context")

    def __init__(self, units: int, context_units: int | None = None, alpha: float = 0.95, **kwargs):
        super().__init__(units, **kwargs)
        self.context_units = self.units if context_units is None else context_units
        self.alpha = alpha
        if self.context_units < 1:
            raise ValueError(f"context_units must be at least 1, got {context_units}")
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha must be at least 0 and below 1, got {alpha}")

    @property
    def state_size(self):
        return [self.units, self.context_units]

    @property
    def output_size(self):
        return self.units + self.context_units

    def build(self, input_shape):
        super().build(input_shape)
        self.context_input_kernel = self.add_weight(
            name="context_input_kernel",
            shape=(self.features_of(input_shape), self.context_units),
            initializer=independent(self.kernel_initializer),
        )
        self.context_kernel = self.add_weight(
            name="context_kernel",
            shape=(self.context_units, self.units),
            initializer=independent(self.kernel_initializer, 2),
        )

    def project(self, inputs):
        written = (1 - self.alpha) * self.dense(inputs, self.context_input_kernel)
        return tf.concat([super().project(inputs), written], axis=-1)

    def step_weights(self):
        return {**super().step_weights(), "context_kernel": self.cast(self.context_kernel)}

    def step(self, projected, states):
        previous_hidden, previous_context = states
        projected_hidden, written = tf.split(projected, self.state_size, axis=-1)
        context = written + self.alpha * previous_context
        hidden = tf.sigmoid(
            self.product(context, "context_kernel")
            + self.product(previous_hidden, "recurrent_kernel")
            + projected_hidden
        )
        return tf.concat([hidden, context], axis=-1), [hidden, context]

    def get_config(self):
        return {**super().get_config(), "context_units": self.context_units, "alpha": self.alpha}
