"""Gated recurrent units."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.base import Cell


@keras.saving.register_keras_serializable("zoo")
class GRU(Cell):
    """The gated recurrent unit of the lecture.

        u = sigma(W_u h_prev + U_u x + b_u)             update gate: what is rewritten
        r = sigma(W_r h_prev + U_r x + b_r)             reset gate: what the candidate sees of h_prev
        h~ = tanh(W_h (r * h_prev) + U_h x + b_h)       candidate
        h = (1 - u) * h_prev + u * h~

    Differs from keras.layers.GRU(reset_after=False): there z = 1 - u multiplies h_prev, so W_u, U_u
    and b_u have the opposite sign.

    Source: Cho et al. 2014, arXiv:1406.1078, with the update gate's sense of Chung et al. 2014,
    arXiv:1412.3555, equation 5, as in CS224N lecture 6.
    """

    GATES = ("update", "reset", "candidate")

    def step_weights(self):
        # The candidate's product waits for the reset gate, so the fused kernel is used in two parts.
        gate_kernel, candidate_kernel = tf.split(
            self.cast(self.recurrent_kernel), [2 * self.units, self.units], axis=-1
        )
        return {"gate_kernel": gate_kernel, "candidate_kernel": candidate_kernel}

    def step(self, projected, states):
        [previous_hidden] = states
        projected_gates, projected_candidate = tf.split(projected, [2 * self.units, self.units], axis=-1)
        gates = tf.sigmoid(projected_gates + self.product(previous_hidden, "gate_kernel"))
        update_gate, reset_gate = tf.split(gates, 2, axis=-1)
        candidate = tf.tanh(
            projected_candidate + self.product(reset_gate * previous_hidden, "candidate_kernel")
        )
        hidden = (1 - update_gate) * previous_hidden + update_gate * candidate
        return hidden, [hidden]
