"""Variants of long short-term memory: other gates, other connections, other ways to keep it in bounds."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.base import Cell, per_gate
from zoo.cells.lstm import LSTM, ForgetGated
from zoo.cells.normalization import layer_norm


@keras.saving.register_keras_serializable("zoo")
class LSTM1997(Cell):
    """The first long short-term memory: it has no forget gate, so it never forgets.

        i = sigma(W_i h_prev + U_i x + b_i)             input gate
        c~ = g(W_c h_prev + U_c x + b_c)                candidate
        o = sigma(W_o h_prev + U_o x + b_o)             output gate
        c = c_prev + i * c~
        h = o * squash(c)

    The paper squashes with scaled logistic functions, g(v) = 4 sigma(v) - 2 = 2 tanh(v / 2) and
    squash(v) = 2 sigma(v) - 1 = tanh(v / 2). With `scaled_squashing=False` both are tanh, as in most
    code and as in Greff et al. 2015 (arXiv:1503.04069), who call it NFG.

    States: hidden h, cell_state c.

    Differs from the paper: each cell has its own gates (memory cell blocks of size 1), gates see what
    cells put out but not each other, and gradients are not truncated.

    Source: Hochreiter and Schmidhuber 1997, "Long short-term memory", section 4 and appendix A.1.
    """

    GATES = ("input", "candidate", "output")
    STATES = ("hidden", "cell_state")

    def __init__(self, units: int, scaled_squashing: bool = True, **kwargs):
        super().__init__(units, **kwargs)
        self.scaled_squashing = bool(scaled_squashing)

    def step(self, projected, states):
        previous_hidden, previous_cell_state = states
        gates = projected + self.product(previous_hidden, "recurrent_kernel")
        input_gate, candidate, output_gate = self.gates(gates)
        width = 2 if self.scaled_squashing else 1
        candidate = width * tf.tanh(candidate / width)
        cell_state = previous_cell_state + tf.sigmoid(input_gate) * candidate
        hidden = tf.sigmoid(output_gate) * tf.tanh(cell_state / width)
        return hidden, [hidden, cell_state]

    def get_config(self):
        return {**super().get_config(), "scaled_squashing": self.scaled_squashing}


@keras.saving.register_keras_serializable("zoo")
class PeepholeLSTM(LSTM):
    """Long short-term memory whose gates see the cell state; it can learn to count and to time.

        i = sigma(W_i h_prev + U_i x + p_i * c_prev + b_i)
        f = sigma(W_f h_prev + U_f x + p_f * c_prev + b_f)
        c~ = tanh(W_c h_prev + U_c x + b_c)
        c = f * c_prev + i * c~
        o = sigma(W_o h_prev + U_o x + p_o * c + b_o)       the new cell state
        h = o * tanh(c)

    `peephole` [3 * units] holds p_i, p_f and p_o; it starts as `kernel_initializer` says. States:
    hidden h, cell_state c.

    Source: Gers and Schmidhuber 2000, "Recurrent nets that time and count"; Gers et al. 2002,
    "Learning precise timing with LSTM recurrent networks".

    Differs from the paper: Gers et al. leave h = o * c without a tanh, which later work put back
    (Graves 2013, arXiv:1308.0850, equations 7 to 11; Greff et al. 2015, arXiv:1503.04069).
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.peephole = self.add_weight(
            name="peephole", shape=(3 * self.units,), initializer=self.kernel_initializer
        )

    def step_weights(self):
        return {**super().step_weights(), "peephole": self.cast(self.peephole)}

    def step(self, projected, states):
        previous_hidden, previous_cell_state = states
        gates = projected + self.product(previous_hidden, "recurrent_kernel")
        input_gate, forget_gate, candidate, output_gate = self.gates(gates)
        input_peephole, forget_peephole, output_peephole = tf.split(self.weight("peephole"), 3)
        input_gate = tf.sigmoid(input_gate + input_peephole * previous_cell_state)
        forget_gate = tf.sigmoid(forget_gate + forget_peephole * previous_cell_state)
        cell_state = forget_gate * previous_cell_state + input_gate * tf.tanh(candidate)
        hidden = tf.sigmoid(output_gate + output_peephole * cell_state) * tf.tanh(cell_state)
        return hidden, [hidden, cell_state]


@keras.saving.register_keras_serializable("zoo")
class CoupledLSTM(ForgetGated):
    """Long short-term memory that writes as much as it forgets (CIFG: coupled input and forget gate).

        f = sigma(W_f h_prev + U_f x + b_f)
        c~ = tanh(W_c h_prev + U_c x + b_c)
        o = sigma(W_o h_prev + U_o x + b_o)
        c = f * c_prev + (1 - f) * c~
        h = o * tanh(c)

    States: hidden h, cell_state c.

    Source: Greff et al. 2015, arXiv:1503.04069, section 3 (CIFG).

    Differs from the paper: it has no peepholes, and the weights are the forget gate's; the paper's
    f = 1 - i is the same with their signs changed.
    """

    GATES = ("forget", "candidate", "output")
    STATES = ("hidden", "cell_state")

    def step(self, projected, states):
        previous_hidden, previous_cell_state = states
        gates = projected + self.product(previous_hidden, "recurrent_kernel")
        forget_gate, candidate, output_gate = self.gates(gates)
        candidate = tf.tanh(candidate)
        cell_state = candidate + tf.sigmoid(forget_gate) * (previous_cell_state - candidate)
        hidden = tf.sigmoid(output_gate) * tf.tanh(cell_state)
        return hidden, [hidden, cell_state]


@keras.saving.register_keras_serializable("zoo")
class ProjectedLSTM(LSTM):
    """Long short-term memory with a smaller hidden state than cell state (LSTMP).

        i, f, c~, o, c                          as in LSTM
        h = W_p (o * tanh(c))                   [projection]

    `projection` is the size of h and of the output; None is a quarter of the units, as in the paper's
    2048 cells and 512 projected. `recurrent_kernel` is [projection, 4 * units], `projection_kernel`
    [units, projection]. States: hidden h [projection], cell_state c [units].

    Source: Sak et al. 2014, arXiv:1402.1128, equations 7 to 13.

    Differs from the paper: there are no peepholes and no second, non-recurrent projection; so it is
    what torch.nn.LSTM(proj_size=projection) computes.
    """

    def __init__(self, units: int, projection: int | None = None, **kwargs):
        super().__init__(units, **kwargs)
        self.projection = max(1, self.units // 4) if projection is None else int(projection)
        if self.projection < 1:
            raise ValueError(f"projection must be at least 1, got {projection}")

    @property
    def state_size(self):
        return [self.projection, self.units]

    @property
    def output_size(self):
        return self.projection

    def build(self, input_shape):
        width = len(self.GATES) * self.units
        self.input_kernel = self.add_weight(
            name="input_kernel",
            shape=(self.features_of(input_shape), width),
            initializer=self.kernel_initializer,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.projection, width),
            initializer=per_gate(self.recurrent_initializer, len(self.GATES)),
        )
        self.bias = self.add_weight(name="bias", shape=(width,), initializer=self.initialize_bias)
        self.projection_kernel = self.add_weight(
            name="projection_kernel",
            shape=(self.units, self.projection),
            initializer=self.recurrent_initializer,
        )

    def step_weights(self):
        return {**super().step_weights(), "projection_kernel": self.cast(self.projection_kernel)}

    def step(self, projected, states):
        unprojected_hidden, [_, cell_state] = super().step(projected, states)
        hidden = self.product(unprojected_hidden, "projection_kernel")
        return hidden, [hidden, cell_state]

    def get_config(self):
        return {**super().get_config(), "projection": self.projection}


@keras.saving.register_keras_serializable("zoo")
class LayerNormLSTM(LSTM):
    """Long short-term memory with layer normalization.

        [i; f; c~; o] = LN(W h_prev) * gain_h + LN(U x) * gain_x + b        all four gates as one vector
        c = sigma(f) * c_prev + sigma(i) * tanh(c~)
        h = sigma(o) * tanh(LN(c) * gain_c + bias_c)

    The weights are named `recurrent_gain`, `input_gain`, `cell_gain` and `cell_bias`. States: hidden h,
    cell_state c, which is kept as it was before its normalization.

    Source: Ba et al. 2016, arXiv:1607.06450, equations 20 to 22.

    Differs from the paper: the first two normalizations have no biases of their own, which would only
    add to b.
    """

    def build(self, input_shape):
        super().build(input_shape)
        width = len(self.GATES) * self.units
        self.recurrent_gain = self.add_weight(name="recurrent_gain", shape=(width,), initializer="ones")
        self.input_gain = self.add_weight(name="input_gain", shape=(width,), initializer="ones")
        self.cell_gain = self.add_weight(name="cell_gain", shape=(self.units,), initializer="ones")
        self.cell_bias = self.add_weight(name="cell_bias", shape=(self.units,), initializer="zeros")

    def project(self, inputs):
        products = layer_norm(tf.cast(self.dense(inputs, self.input_kernel), self.state_dtype))
        return self.cast(products) * self.cast(self.input_gain) + self.cast(self.bias)

    def step_weights(self):
        names = ("recurrent_gain", "cell_gain", "cell_bias")
        return {**super().step_weights(), **{name: self.cast(getattr(self, name)) for name in names}}

    def step(self, projected, states):
        previous_hidden, previous_cell_state = states
        products = layer_norm(self.product(previous_hidden, "recurrent_kernel"))
        gates = products * self.weight("recurrent_gain") + projected
        hidden, cell_state = self.update(gates, previous_cell_state, self.normalized_tanh)
        return hidden, [hidden, cell_state]

    def normalized_tanh(self, cell_state):
        return tf.tanh(layer_norm(cell_state) * self.weight("cell_gain") + self.weight("cell_bias"))


@keras.saving.register_keras_serializable("zoo")
class WeightDroppedLSTM(LSTM):
    """LSTM of whose recurrent weights `weight_drop`, half of them, are dropped in training.

    The same weights are dropped at all steps of a sequence. Outside training it is LSTM.

    Source: Merity et al. 2018, arXiv:1708.02182 (AWD-LSTM), section 2.
    """

    def __init__(self, units: int, weight_drop: float = 0.5, **kwargs):
        super().__init__(units, weight_drop=weight_drop, **kwargs)


@keras.saving.register_keras_serializable("zoo")
class JANET(ForgetGated):
    """Just another network: a forget gate is all of it.

        s = W_f h_prev + U_f x + b_f
        c~ = tanh(W_c h_prev + U_c x + b_c)
        h = sigma(s) * h_prev + (1 - sigma(s - beta)) * c~

    The hidden state is the cell state. `beta` lets it write a little more than it forgets; at 0 it is
    a coupled LSTM without an output gate. The paper sets `chrono` to the length of its sequences, 784
    for MNIST pixel by pixel.

    Source: van der Westhuizen and Lasenby 2018, arXiv:1804.04849, equation 4.
    """

    GATES = ("forget", "candidate")

    def __init__(self, units: int, beta: float = 1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.beta = float(beta)

    def step(self, projected, states):
        [previous_hidden] = states
        gates = projected + self.product(previous_hidden, "recurrent_kernel")
        forget_gate, candidate = self.gates(gates)
        # 1 - sigma(v) = sigma(-v), which is exact where sigma(v) rounds to 1.
        written = tf.sigmoid(self.beta - forget_gate) * tf.tanh(candidate)
        hidden = tf.sigmoid(forget_gate) * previous_hidden + written
        return hidden, [hidden]

    def get_config(self):
        return {**super().get_config(), "beta": self.beta}
