"""Long short-term memory whose transition depends on the input, beyond adding to it."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.lstm import LSTM


@keras.saving.register_keras_serializable("zoo")
class MultiplicativeLSTM(LSTM):
    """Long short-term memory with another transition for each input (mLSTM, not xLSTM's).

        m = (U_m x) * (W_m h_prev)                  multiplicative state
        i, f, c~, o, c, h                           as in LSTM, with m in the place of h_prev

    The kernels of m are `multiplicative_input_kernel` [features, units] and `multiplicative_kernel`
    [units, units]; `recurrent_kernel` multiplies m. States: hidden h, cell_state c.

    Source: Krause et al. 2016, arXiv:1609.07959, section 3.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.multiplicative_input_kernel = self.add_weight(
            name="multiplicative_input_kernel",
            shape=(self.features_of(input_shape), self.units),
            initializer=self.kernel_initializer,
        )
        self.multiplicative_kernel = self.add_weight(
            name="multiplicative_kernel",
            shape=(self.units, self.units),
            initializer=self.recurrent_initializer,
        )

    def project(self, inputs):
        kernels = [self.cast(self.input_kernel), self.cast(self.multiplicative_input_kernel)]
        biases = tf.pad(self.cast(self.bias), [[0, self.units]])
        return self.dense(inputs, tf.concat(kernels, -1)) + biases

    def step_weights(self):
        return {**super().step_weights(), "multiplicative_kernel": self.cast(self.multiplicative_kernel)}

    def step(self, projected, states):
        previous_hidden, previous_cell_state = states
        projected_gates, factor = tf.split(projected, [len(self.GATES) * self.units, self.units], axis=-1)
        multiplicative = factor * self.product(previous_hidden, "multiplicative_kernel")
        gates = projected_gates + self.product(multiplicative, "recurrent_kernel")
        hidden, cell_state = self.update(gates, previous_cell_state)
        return hidden, [hidden, cell_state]


@keras.saving.register_keras_serializable("zoo")
class MogrifierLSTM(LSTM):
    """Long short-term memory whose input and hidden state scale each other in rounds beforehand.

        x <- 2 sigma(Q_k h_prev) * x                odd rounds k = 1, 3, ... up to `rounds`
        h_prev <- 2 sigma(R_k x) * h_prev           even rounds k = 2, 4, ...
        i, f, c~, o, c, h                           as in LSTM, of these x and h_prev

    With `rank` above 0, each Q_k and R_k is a product of two matrices, of which that is the inner
    size. The weights are `round_1_kernel` [units, features], `input_round_2_kernel` [features, units],
    ...; with a rank `round_1_left_kernel` [units, rank], `round_1_right_kernel` [rank, features], ...
    The input cannot be projected beforehand. States: hidden h, cell_state c.

    Source: Melis et al. 2019, arXiv:1909.01792, equations 1 and 2.
    """

    def __init__(self, units: int, rounds: int = 5, rank: int = 0, **kwargs):
        super().__init__(units, **kwargs)
        self.rounds, self.rank = int(rounds), int(rank)
        if self.rounds < 0 or self.rank < 0:
            raise ValueError(f"rounds and rank must be at least 0, got {rounds} and {rank}")

    def build(self, input_shape):
        super().build(input_shape)
        features = self.features_of(input_shape)
        self.round_kernels = {}
        for number in range(1, self.rounds + 1):
            rows, columns = (self.units, features) if number % 2 else (features, self.units)
            shapes = {"kernel": (rows, columns)}
            if self.rank:
                shapes = {"left_kernel": (rows, self.rank), "right_kernel": (self.rank, columns)}
            for part, shape in shapes.items():
                name = f"{round_name(number)}_{part}"
                self.round_kernels[name] = self.add_weight(
                    name=name, shape=shape, initializer=self.kernel_initializer
                )

    def project(self, inputs):
        return self.cast(inputs)

    def step_weights(self):
        others = {"input_kernel": self.input_kernel, "bias": self.bias, **self.round_kernels}
        return {**super().step_weights(), **{name: self.cast(weight) for name, weight in others.items()}}

    def step(self, projected, states):
        previous_hidden, previous_cell_state = states
        inputs, previous_hidden = self.mogrified(projected, previous_hidden)
        gates = self.product(inputs, "input_kernel") + self.product(previous_hidden, "recurrent_kernel")
        hidden, cell_state = self.update(gates + self.weight("bias"), previous_cell_state)
        return hidden, [hidden, cell_state]

    def mogrified(self, inputs, hidden):
        for number in range(1, self.rounds + 1):
            if number % 2:
                inputs = 2 * tf.sigmoid(self.round_product(hidden, number)) * inputs
            else:
                hidden = 2 * tf.sigmoid(self.round_product(inputs, number)) * hidden
        return inputs, hidden

    def round_product(self, operand, number):
        name = round_name(number)
        if self.rank:
            return self.product(self.product(operand, f"{name}_left_kernel"), f"{name}_right_kernel")
        return self.product(operand, f"{name}_kernel")

    def get_config(self):
        return {**super().get_config(), "rounds": self.rounds, "rank": self.rank}


def round_name(number: int) -> str:
    """What the names of a round's kernels begin with: those of even rounds multiply inputs."""
    return f"round_{number}" if number % 2 else f"input_round_{number}"
