"""Long short-term memory."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.base import Cell


@keras.saving.register_keras_serializable("zoo")
class LSTM(Cell):
    """Long short-term memory with a forget gate.

        i = sigma(W_i h_prev + U_i x + b_i)         input gate: what is written
        f = sigma(W_f h_prev + U_f x + b_f)         forget gate: what is kept
        c~ = tanh(W_c h_prev + U_c x + b_c)         candidate: the new content
        o = sigma(W_o h_prev + U_o x + b_o)         output gate: what is read
        c = f * c_prev + i * c~
        h = o * tanh(c)

    States: hidden h, cell_state c. The forget gate's bias starts at `forget_bias` (1, Jozefowicz
    et al. 2015; Zaremba et al. 2014 used 0).

    Source: Hochreiter and Schmidhuber 1997; the forget gate is Gers et al. 2000.
    """

    GATES = ("input", "forget", "candidate", "output")
    STATES = ("hidden", "cell_state")

    def __init__(self, units: int, forget_bias: float = 1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.forget_bias = forget_bias

    def initialize_bias(self, shape, dtype=None):
        bias = super().initialize_bias(shape, dtype=dtype)
        is_forget_gate = tf.repeat([gate == "forget" for gate in self.GATES], self.units)
        return tf.where(is_forget_gate, tf.cast(self.forget_bias, bias.dtype), bias)

    def step(self, projected, states):
        previous_hidden, previous_cell_state = states
        gates = projected + self.product(previous_hidden, "recurrent_kernel")
        input_gate, forget_gate, candidate, output_gate = self.gates(gates)
        written = tf.sigmoid(input_gate) * tf.tanh(candidate)
        cell_state = tf.sigmoid(forget_gate) * previous_cell_state + written
        hidden = tf.sigmoid(output_gate) * tf.tanh(cell_state)
        return hidden, [hidden, cell_state]

    def get_config(self):
        return {**super().get_config(), "forget_bias": self.forget_bias}
