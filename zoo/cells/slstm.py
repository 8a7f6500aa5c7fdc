"""Long short-term memory with exponential gates."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.base import per_gate
from zoo.cells.blocks import block_diagonal
from zoo.cells.lstm import ForgetGated

FORGET_GATES = ("sigmoid", "exponential")


def check_xlstm(cell) -> None:
    """Raise ValueError where one of xLSTM's two cells cannot be as it was asked for."""
    name = type(cell).__name__
    if cell.heads < 1 or cell.units % cell.heads:
        raise ValueError(f"{name}: units must be a multiple of heads, got {cell.units} and {cell.heads}")
    if cell.forget_gate not in FORGET_GATES:
        raise ValueError(
            f"{name}: forget_gate must be one of {', '.join(FORGET_GATES)}; got {cell.forget_gate!r}"
        )
    if cell.zoneout:
        raise ValueError(f"{name} has no zoneout: a state means nothing without its own step's stabilizer")


@keras.saving.register_keras_serializable("zoo")
class SLSTM(ForgetGated):
    """The scalar-memory cell of xLSTM: gates are exponential, and what they weigh is normalized.

        log i = W_i h_prev + U_i x + b_i
        log f = log sigma(W_f h_prev + U_f x + b_f)         or without log sigma: `forget_gate`
        z = tanh(W_z h_prev + U_z x + b_z)                  candidate
        o = sigma(W_o h_prev + U_o x + b_o)
        m = max(log f + m_prev, log i)                      stabilizer
        i' = exp(log i - m),  f' = exp(log f + m_prev - m)
        c = f' * c_prev + i' * z
        n = f' * n_prev + i'                                normalizer
        h = o * c / n

    c / n is an average of the candidates, and does not depend on m, which keeps exp in bounds. Where
    n_prev is 0, as at the start of a sequence, m = log i: there is nothing yet to be stable against.

    `forget_gate` is "sigmoid" or "exponential". With `heads` above 1 a unit sees the hidden units of
    its own head only: the kernels W are block-diagonal, `recurrent_kernel` [units / heads, 4 * units].
    States: hidden h, cell_state c, normalizer n, stabilizer m.

    There is no zoneout: a state means nothing without the stabilizer of its own step.

    Raises ValueError if `units` is not a multiple of `heads`, for another forget gate, or for zoneout.

    Source: Beck et al. 2024, arXiv:2405.04517, equations 8 to 17. Its block, with a convolution,
    normalization by head and projections around the cell, is not part of it.
    """

    GATES = ("input", "forget", "candidate", "output")
    STATES = ("hidden", "cell_state", "normalizer", "stabilizer")

    def __init__(self, units: int, heads: int = 1, forget_gate: str = "sigmoid", **kwargs):
        super().__init__(units, **kwargs)
        self.heads = int(heads)
        self.forget_gate = forget_gate
        check_xlstm(self)

    def build(self, input_shape):
        width = len(self.GATES) * self.units
        self.input_kernel = self.add_weight(
            name="input_kernel",
            shape=(self.features_of(input_shape), width),
            initializer=self.kernel_initializer,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units // self.heads, width),
            initializer=per_gate(self.recurrent_initializer, len(self.GATES) * self.heads),
        )
        self.bias = self.add_weight(name="bias", shape=(width,), initializer=self.initialize_bias)

    def step_weights(self):
        kernel = self.cast(self.recurrent_kernel)
        return {"recurrent_kernel": block_diagonal(kernel, self.heads, repeats=len(self.GATES))}

    def step(self, projected, states):
        previous_hidden, previous_cell_state, previous_normalizer, previous_stabilizer = states
        gates = projected + self.product(previous_hidden, "recurrent_kernel")
        log_input, log_forget, candidate, output_gate = self.gates(gates)
        if self.forget_gate == "sigmoid":
            log_forget = tf.math.log_sigmoid(log_forget)
        log_kept = log_forget + previous_stabilizer
        stabilizer = tf.where(previous_normalizer == 0, log_input, tf.maximum(log_kept, log_input))
        input_gate = tf.exp(log_input - stabilizer)
        forget_gate = tf.exp(tf.minimum(log_kept - stabilizer, 0))
        cell_state = forget_gate * previous_cell_state + input_gate * tf.tanh(candidate)
        normalizer = forget_gate * previous_normalizer + input_gate
        hidden = tf.sigmoid(output_gate) * cell_state / normalizer
        return hidden, [hidden, cell_state, normalizer, stabilizer]

    def get_config(self):
        return {**super().get_config(), "heads": self.heads, "forget_gate": self.forget_gate}
