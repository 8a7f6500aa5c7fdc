"""Gated recurrent units."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.base import Cell
from zoo.cells.normalization import layer_norm


def interpolate(start: tf.Tensor, end: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """(1 - share) * start + share * end, in one operation less."""
    return start + share * (end - start)


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
        hidden = interpolate(previous_hidden, candidate, update_gate)
        return hidden, [hidden]


@keras.saving.register_keras_serializable("zoo")
class GRUResetAfter(Cell):
    """The gated recurrent unit of cuDNN: resets after the product, so that a step has one product.

        u = sigma(W_u h_prev + U_u x + b_u)                     update gate: what is rewritten
        r = sigma(W_r h_prev + U_r x + b_r)                     reset gate
        h~ = tanh(r * (W_h h_prev + b_rec) + U_h x + b_h)       candidate
        h = (1 - u) * h_prev + u * h~

    b_rec is the weight `recurrent_bias` [units]. The gates need no second bias: it would only be
    added to the first.

    Differs from keras.layers.GRU(reset_after=True), torch.nn.GRU and cuDNN: there z = 1 - u multiplies
    h_prev, so W_u, U_u and b_u have the opposite sign; and they keep two biases of each gate.

    Source: the first version of Cho et al. 2014, arXiv:1406.1078v1, as cuDNN has it (Appleyard et al.
    2016, arXiv:1604.01946); update gate as in CS224N lecture 6.
    """

    GATES = ("update", "reset", "candidate")

    def build(self, input_shape):
        super().build(input_shape)
        self.recurrent_bias = self.add_weight(
            name="recurrent_bias", shape=(self.units,), initializer=self.bias_initializer
        )

    def step_weights(self):
        return {**super().step_weights(), "recurrent_bias": self.cast(self.recurrent_bias)}

    def step(self, projected, states):
        [previous_hidden] = states
        projected_gates, projected_candidate = self.gates_and_candidate(projected)
        recurrent_gates, recurrent_candidate = self.recurrent_parts(previous_hidden)
        gates = tf.sigmoid(projected_gates + recurrent_gates)
        update_gate, reset_gate = tf.split(gates, 2, axis=-1)
        candidate = tf.tanh(projected_candidate + reset_gate * recurrent_candidate)
        hidden = interpolate(previous_hidden, candidate, update_gate)
        return hidden, [hidden]

    def recurrent_parts(self, hidden: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What the state contributes to the two gates, and to the candidate before its reset."""
        gates, candidate = self.gates_and_candidate(self.product(hidden, "recurrent_kernel"))
        return gates, candidate + self.weight("recurrent_bias")

    def gates_and_candidate(self, fused: tf.Tensor) -> list[tf.Tensor]:
        """Split [..., 3 * units] into the columns of both gates and those of the candidate."""
        return tf.split(fused, [2 * self.units, self.units], axis=-1)


@keras.saving.register_keras_serializable("zoo")
class LayerNormGRU(GRUResetAfter):
    """A gated recurrent unit whose products are normalized.

        (u, r) = sigma(LN(W h_prev) + LN(U x) + b)                      both gates, normalized together
        h~ = tanh(r * (LN(W_h h_prev) + b_rec) + LN(U_h x) + b_h)       candidate
        h = (1 - u) * h_prev + u * h~

    LN subtracts the mean and divides by the standard deviation over the columns, and multiplies by a
    gain that starts at 1: `input_gain` and `recurrent_gain` [3 * units], in the order of GATES.

    Differs from the paper: the gates have one bias, not two, since these are only added.

    Source: Ba et al. 2016, arXiv:1607.06450, supplement, "GRU" (the reset gate applies after the product).
    """

    def build(self, input_shape):
        super().build(input_shape)
        shape = (3 * self.units,)
        self.input_gain = self.add_weight(name="input_gain", shape=shape, initializer="ones")
        self.recurrent_gain = self.add_weight(name="recurrent_gain", shape=shape, initializer="ones")

    def project(self, inputs):
        # The sums of a normalization are taken in the states' precision.
        products = tf.cast(self.dense(inputs, self.input_kernel), self.state_dtype)
        normalized = [layer_norm(part) for part in self.gates_and_candidate(products)]
        gain, bias = tf.cast(self.input_gain, self.state_dtype), tf.cast(self.bias, self.state_dtype)
        return tf.concat(normalized, axis=-1) * gain + bias

    def step_weights(self):
        gate_gain, candidate_gain = self.gates_and_candidate(self.cast(self.recurrent_gain))
        return {**super().step_weights(), "gate_gain": gate_gain, "candidate_gain": candidate_gain}

    def recurrent_parts(self, hidden):
        gates, candidate = self.gates_and_candidate(self.product(hidden, "recurrent_kernel"))
        return (
            layer_norm(gates) * self.weight("gate_gain"),
            layer_norm(candidate) * self.weight("candidate_gain") + self.weight("recurrent_bias"),
        )


@keras.saving.register_keras_serializable("zoo")
class MGU(Cell):
    """The minimal gated unit: one gate that both resets and updates.

        f = sigma(W_f h_prev + U_f x + b_f)             forget gate
        h~ = tanh(W_h (f * h_prev) + U_h x + b_h)       candidate
        h = (1 - f) * h_prev + f * h~

    Source: Zhou et al. 2016, arXiv:1603.09420, table 1.
    """

    GATES = ("forget", "candidate")

    def step_weights(self):
        # The candidate's product waits for the forget gate, so the fused kernel is used in two parts.
        gate_kernel, candidate_kernel = tf.split(self.cast(self.recurrent_kernel), 2, axis=-1)
        return {"gate_kernel": gate_kernel, "candidate_kernel": candidate_kernel}

    def step(self, projected, states):
        [previous_hidden] = states
        projected_gate, projected_candidate = self.gates(projected)
        forget_gate = tf.sigmoid(projected_gate + self.product(previous_hidden, "gate_kernel"))
        candidate = tf.tanh(
            projected_candidate + self.product(forget_gate * previous_hidden, "candidate_kernel")
        )
        hidden = interpolate(previous_hidden, candidate, forget_gate)
        return hidden, [hidden]
