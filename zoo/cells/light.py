"""Light relatives of the gated recurrent unit: fewer gates, fewer products that wait for the state."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.base import Cell
from zoo.cells.gru import interpolate
from zoo.cells.normalization import layer_norm
from zoo.cells.weights import add_fused_weights, independent


@keras.saving.register_keras_serializable("zoo")
class UGRNN(Cell):
    """The update gate recurrent network.

        g = sigma(W_g h_prev + U_g x + b_g)         update gate: what is kept
        c = tanh(W_c h_prev + U_c x + b_c)          candidate
        h = g * h_prev + (1 - g) * c

    The update gate's bias starts at `update_bias`: 1, as in the TensorFlow code by one of the authors.

    Source: Collins et al. 2016, arXiv:1611.09913, "UGRNN".
    """

    GATES = ("update", "candidate")

    def __init__(self, units: int, update_bias: float = 1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.update_bias = update_bias

    def initialize_bias(self, shape, dtype=None):
        bias = super().initialize_bias(shape, dtype=dtype)
        update_bias = tf.fill([self.units], tf.cast(self.update_bias, bias.dtype))
        return tf.concat([update_bias, bias[self.units :]], 0)

    def step(self, projected, states):
        [previous_hidden] = states
        update_gate, candidate = self.gates(projected + self.product(previous_hidden, "recurrent_kernel"))
        hidden = interpolate(tf.tanh(candidate), previous_hidden, tf.sigmoid(update_gate))
        return hidden, [hidden]

    def get_config(self):
        return {**super().get_config(), "update_bias": self.update_bias}


@keras.saving.register_keras_serializable("zoo")
class LightGRU(Cell):
    """The light gated recurrent unit: no reset gate, a rectified candidate, normalized inputs.

        z = sigma(W_z h_prev + N(U_z x) + b_z)          update gate: what is kept
        h~ = relu(W_h h_prev + N(U_h x) + b_h)          candidate
        h = z * h_prev + (1 - z) * h~

    N is layer normalization of both products together, with a gain `input_gain` [2 * units] that starts
    at 1; with `layer_norm=False` it is the identity, and states can grow without bound.

    Differs from the paper: there N is batch normalization. Its statistics, of a batch and all its
    steps, would make a row depend on the rows beside it, and one step on those that follow.

    Source: Ravanelli et al. 2018, arXiv:1803.10225.
    """

    GATES = ("update", "candidate")

    def __init__(self, units: int, layer_norm: bool = True, **kwargs):
        super().__init__(units, **kwargs)
        self.layer_norm = layer_norm

    def build(self, input_shape):
        super().build(input_shape)
        if self.layer_norm:
            self.input_gain = self.add_weight(name="input_gain", shape=(2 * self.units,), initializer="ones")

    def project(self, inputs):
        if not self.layer_norm:
            return super().project(inputs)
        # The sums of a normalization are taken in the states' precision.
        normalized = layer_norm(tf.cast(self.dense(inputs, self.input_kernel), self.state_dtype))
        gain, bias = tf.cast(self.input_gain, self.state_dtype), tf.cast(self.bias, self.state_dtype)
        return normalized * gain + bias

    def step(self, projected, states):
        [previous_hidden] = states
        update_gate, candidate = self.gates(projected + self.product(previous_hidden, "recurrent_kernel"))
        hidden = interpolate(tf.nn.relu(candidate), previous_hidden, tf.sigmoid(update_gate))
        return hidden, [hidden]

    def get_config(self):
        return {**super().get_config(), "layer_norm": self.layer_norm}


@keras.saving.register_keras_serializable("zoo")
class RAN(Cell):
    """The recurrent additive network: its state is a weighted sum of its inputs.

        c~ = U_c x                              content, linear and without a bias
        i = sigma(W_i h_prev + U_i x + b_i)     input gate: what is written
        f = sigma(W_f h_prev + U_f x + b_f)     forget gate: what is kept
        c = i * c~ + f * c_prev
        h = g(c)

    States: hidden h, cell_state c. `activation` is g: tanh, or "linear" for the purely additive
    network. `recurrent_kernel` and `bias` have no columns for the content.

    Source: Lee et al. 2017, arXiv:1705.07393, equation 1.
    """

    GATES = ("input", "forget", "content")
    STATES = ("hidden", "cell_state")

    def __init__(self, units: int, activation="tanh", **kwargs):
        super().__init__(units, **kwargs)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        add_fused_weights(self, self.features_of(input_shape), inputs=3, recurrent=2, biases=2)

    def project(self, inputs):
        return self.dense(inputs, self.input_kernel) + tf.pad(self.cast(self.bias), [[0, self.units]])

    def step(self, projected, states):
        previous_hidden, previous_cell_state = states
        projected_gates, content = tf.split(projected, [2 * self.units, self.units], axis=-1)
        gates = tf.sigmoid(projected_gates + self.product(previous_hidden, "recurrent_kernel"))
        input_gate, forget_gate = tf.split(gates, 2, axis=-1)
        cell_state = input_gate * content + forget_gate * previous_cell_state
        hidden = self.activation(cell_state)
        return hidden, [hidden, cell_state]

    def get_config(self):
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}


@keras.saving.register_keras_serializable("zoo")
class MinimalRNN(Cell):
    """The minimal recurrent network: inputs are mapped to where the states live, and averaged there.

        z = tanh(U x + b_z)                             latent input: Phi(x)
        u = sigma(W_h h_prev + W_z z + b_u)             update gate: what is kept
        h = u * h_prev + (1 - u) * z

    W_z is the weight `latent_kernel` [units, units]. All but W_h h_prev is done for all steps at once.

    Source: Chen 2017, arXiv:1711.06788; Phi is its one-layer perceptron.
    """

    GATES = ("latent", "update")

    def build(self, input_shape):
        add_fused_weights(self, self.features_of(input_shape), inputs=1, recurrent=1, biases=2)
        self.latent_kernel = self.add_weight(
            name="latent_kernel",
            shape=(self.units, self.units),
            initializer=independent(self.kernel_initializer),
        )

    def project(self, inputs):
        latent_bias, update_bias = tf.split(self.cast(self.bias), 2)
        latent = tf.tanh(self.dense(inputs, self.input_kernel) + latent_bias)
        return tf.concat([latent, self.dense(latent, self.latent_kernel) + update_bias], axis=-1)

    def step(self, projected, states):
        [previous_hidden] = states
        latent, projected_gate = self.gates(projected)
        update_gate = tf.sigmoid(projected_gate + self.product(previous_hidden, "recurrent_kernel"))
        hidden = interpolate(latent, previous_hidden, update_gate)
        return hidden, [hidden]


@keras.saving.register_keras_serializable("zoo")
class ATR(Cell):
    """The addition-subtraction twin-gated recurrent network: two gates from one pair of products.

        p = U x + b
        q = W h_prev
        i = sigma(p + q)                        input gate: what is written
        f = sigma(p - q)                        forget gate: what is kept
        h = i * p + f * h_prev

    Differs from the paper: its equations leave out the bias b, which starts at zero.

    Source: Zhang et al. 2018, arXiv:1810.12546.
    """

    GATES = ("candidate",)

    def step(self, projected, states):
        [previous_hidden] = states
        recurrent = self.product(previous_hidden, "recurrent_kernel")
        input_gate = tf.sigmoid(projected + recurrent)
        forget_gate = tf.sigmoid(projected - recurrent)
        hidden = input_gate * projected + forget_gate * previous_hidden
        return hidden, [hidden]
