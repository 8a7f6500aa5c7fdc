"""Quasi-recurrent networks."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.linear import LinearCell
from zoo.linear_scan import before, held, last

POOLING = {
    "f": ("candidate", "forget"),
    "fo": ("candidate", "forget", "output"),
    "ifo": ("candidate", "forget", "output", "input"),
}


@keras.saving.register_keras_serializable("zoo")
class QRNN(LinearCell):
    """The quasi-recurrent network: a convolution over time, and a recurrence that only pools.

        z = tanh(W_z * X + b_z)                 candidate; * is a convolution of this input
        f = sigma(W_f * X + b_f)                and the `window` - 1 before it
        o = sigma(W_o * X + b_o)                output gate, with `pooling` "fo" and "ifo"
        i = sigma(W_i * X + b_i)                input gate, with "ifo"; otherwise i = 1 - f
        c = f * c_prev + i * z
        h = o * c                               with "f": h = c

    `input_kernel` [features, window * gates * units] has the columns for this input first, then for
    that before it, and so on. States: cell_state c, and the window: what earlier inputs contribute to
    this step's gates, to those of the next one, ... [(window - 1) * gates * units]. Sums of products
    stand for the inputs, since a state's size is to be known before that of the inputs is.

    Raises ValueError for an unknown `pooling` and a `window` below 1.

    Source: Bradbury et al. 2016, arXiv:1611.01576, section 2, equations 1 to 5.
    Differs from the paper: gates have biases, as in the authors' code.
    """

    STATES = ("cell_state", "window")

    def __init__(self, units: int, window: int = 2, pooling: str = "fo", **kwargs):
        super().__init__(units, **kwargs)
        if pooling not in POOLING:
            raise ValueError(f"pooling must be one of {', '.join(POOLING)}; got {pooling!r}")
        if window < 1:
            raise ValueError(f"window must be at least 1 (step), got {window}")
        self.GATES = POOLING[pooling]
        self.pooling = pooling
        self.window = int(window)

    @property
    def width(self) -> int:
        """Of the fused gates."""
        return len(self.GATES) * self.units

    @property
    def state_size(self):
        return [self.units, (self.window - 1) * self.width]

    def build(self, input_shape):
        gates = len(self.GATES)
        self.add_input_weights(self.features_of(input_shape), self.window * gates, gates)

    def fused_bias(self):
        # Projections are what inputs contribute to the gates of their own step, and to those after it.
        return tf.pad(self.cast(self.bias), [[0, (self.window - 1) * self.width]])

    def step(self, projected, states):
        previous_cell_state, window = states
        gates, window = self.convolved(projected, window)
        output, [cell_state] = super().step(gates, [previous_cell_state])
        return output, [cell_state, window]

    def convolved(self, projected, window):
        """The gates of a step, and the window after it."""
        contributions = projected + tf.pad(window, [[0, 0], [0, self.width]])
        return tf.split(contributions, [self.width, (self.window - 1) * self.width], axis=-1)

    def advance(self, projected, states, zoned=None):
        output, [cell_state, window] = super().advance(projected, states, zoned)
        if self.zoneout:  # keeps memories; the window moves on in any case
            _, window = self.convolved(tf.cast(projected, self.state_dtype), states[1])
        return output, [cell_state, window]

    def decay_and_increment(self, projections):
        candidate, forget_gate, *others = projections
        forget_gate = tf.sigmoid(forget_gate)
        input_gate = tf.sigmoid(others[1]) if self.pooling == "ifo" else 1 - forget_gate
        return forget_gate, input_gate * tf.tanh(candidate)

    def output(self, projections, state):
        if self.pooling == "f":
            return state
        _, _, output_gate, *_ = projections
        return tf.sigmoid(output_gate) * state

    def parallel(self, inputs, states, mask=None):
        cell_state, window = states
        gates, parts = len(self.GATES), (self.window - 1) * len(self.GATES)
        contributions = self.in_state_precision(self.projections(inputs))
        waiting = tf.split(window, parts, axis=-1) if parts else []
        # What each part of the window is after every step; with the next one it has come a step nearer.
        for part in reversed(range(parts)):
            after = held(contributions[part + gates], mask, waiting[part])
            contributions[part] += before(after, waiting[part])
            waiting[part] = last(after, waiting[part])
        outputs, last_output, [cell_state] = self.evaluate(contributions[:gates], cell_state, mask)
        # Without parts, the window is empty and stays so.
        return outputs, last_output, [cell_state, tf.concat([*waiting, window[:, :0]], axis=-1)]

    def get_config(self):
        return {**super().get_config(), "window": self.window, "pooling": self.pooling}
