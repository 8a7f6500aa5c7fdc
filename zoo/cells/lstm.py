"""Long short-term memory, and how forget gates start."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from zoo.cells.base import Cell


class ForgetGated(Cell):
    """A cell with a forget gate: how much it keeps before it has learnt anything.

    Args:
        forget_bias: the forget gate's bias at first (1, Jozefowicz et al. 2015; Zaremba et al. 2014
            used 0).
        chrono: the longest dependency that is expected, in steps; 0 for not known. It sets biases
            in place of `forget_bias`, so that memories last 1 to `chrono` steps at first:

                b_f ~ log U(1, chrono - 1)
                b_i = -b_f          where there is an input gate

            (Tallec and Ollivier 2018, arXiv:1804.11188, equation 16.) They are drawn from `seed`.
    """

    def __init__(self, units: int, forget_bias: float = 1.0, chrono: int = 0, **kwargs):
        super().__init__(units, **kwargs)
        self.forget_bias = forget_bias
        self.chrono = int(chrono)
        if self.chrono and self.chrono < 2:
            raise ValueError(f"chrono must be 0 or at least 2 (steps), got {chrono}")

    def initialize_bias(self, shape, dtype=None):
        biases = tf.split(super().initialize_bias(shape, dtype=dtype), len(self.GATES))
        starts = dict(zip(self.GATES, biases, strict=True))
        if self.chrono:
            steps = keras.random.uniform([self.units], 1, self.chrono - 1, dtype=dtype, seed=self.seed)
            starts["forget"] = tf.math.log(steps)
            if "input" in starts:
                starts["input"] = -starts["forget"]
        else:
            starts["forget"] = tf.fill([self.units], tf.cast(self.forget_bias, biases[0].dtype))
        return tf.concat(list(starts.values()), 0)

    def get_config(self):
        return {**super().get_config(), "forget_bias": self.forget_bias, "chrono": self.chrono}


@keras.saving.register_keras_serializable("zoo")
class LSTM(ForgetGated):
    """Long short-term memory with a forget gate.

        i = sigma(W_i h_prev + U_i x + b_i)         input gate: what is written
        f = sigma(W_f h_prev + U_f x + b_f)         forget gate: what is kept
        c~ = tanh(W_c h_prev + U_c x + b_c)         candidate: the new content
        o = sigma(W_o h_prev + U_o x + b_o)         output gate: what is read
        c = f * c_prev + i * c~
        h = o * tanh(c)

    States: hidden h, cell_state c.

    Source: Hochreiter and Schmidhuber 1997; the forget gate is Gers et al. 2000.
    """

    GATES = ("input", "forget", "candidate", "output")
    STATES: tuple[str, ...] = ("hidden", "cell_state")

    def step(self, projected, states):
        previous_hidden, previous_cell_state = states
        gates = projected + self.product(previous_hidden, "recurrent_kernel")
        hidden, cell_state = self.update(gates, previous_cell_state)
        return hidden, [hidden, cell_state]

    def update(
        self,
        gates: tf.Tensor,
        previous_cell_state: tf.Tensor,
        squash: Callable[[tf.Tensor], tf.Tensor] = tf.tanh,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """h and c, given what is in the parentheses above as [batch, 4 * units]; `squash` is tanh of c."""
        input_gate, forget_gate, candidate, output_gate = self.gates(gates)
        written = tf.sigmoid(input_gate) * tf.tanh(candidate)
        cell_state = tf.sigmoid(forget_gate) * previous_cell_state + written
        return tf.sigmoid(output_gate) * squash(cell_state), cell_state
