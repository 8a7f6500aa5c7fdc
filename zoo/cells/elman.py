"""Simple recurrent networks: no gates, but ways to make gradients last."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.base import Cell
from zoo.cells.weights import add_fused_weights, independent


@keras.saving.register_keras_serializable("zoo")
class Elman(Cell):
    """The simple (vanilla, Elman) recurrence.

        h = sigma(W_h h_prev + W_x x + b)

    sigma is the logistic function as in the lecture (CS224N lecture 6); most code uses
    `activation="tanh"`, whose gradient vanishes more slowly (tanh' <= 1, sigma' <= 1/4).

    Source: Elman 1990, "Finding structure in time".
    """

    def __init__(self, units: int, activation="sigmoid", **kwargs):
        super().__init__(units, **kwargs)
        self.activation = keras.activations.get(activation)

    def step(self, projected, states):
        [previous_hidden] = states
        hidden = self.activation(projected + self.product(previous_hidden, "recurrent_kernel"))
        return hidden, [hidden]

    def get_config(self):
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}


@keras.saving.register_keras_serializable("zoo")
class Jordan(Elman):
    """The Jordan network: what is fed back is the output, not the hidden layer.

        h = sigma(W_y y_prev + W_x x + b)       hidden layer
        y = sigma(V h + c)                      output

    States: output y. V is the weight `output_kernel` [units, units], c is `output_bias`; both layers have
    `units` units and the same `activation`.

    Differs from the paper: its state is a decaying sum of outputs, s = mu * s_prev + y_prev; here
    mu = 0, the form in which the network is mostly cited.

    Source: Jordan 1986, "Serial order: a parallel distributed processing approach".
    """

    STATES = ("output",)

    def build(self, input_shape):
        super().build(input_shape)
        self.output_kernel = self.add_weight(
            name="output_kernel",
            shape=(self.units, self.units),
            initializer=independent(self.kernel_initializer),
        )
        self.output_bias = self.add_weight(
            name="output_bias", shape=(self.units,), initializer=self.bias_initializer
        )

    def step_weights(self):
        return {
            **super().step_weights(),
            "output_kernel": self.cast(self.output_kernel),
            "output_bias": self.cast(self.output_bias),
        }

    def step(self, projected, states):
        [previous_output] = states
        hidden = self.activation(projected + self.product(previous_output, "recurrent_kernel"))
        output = self.activation(self.product(hidden, "output_kernel") + self.weight("output_bias"))
        return output, [output]


# Initializers by their configuration: an instance as a default would give all cells the same numbers.
SMALL_NORMAL = {"class_name": "RandomNormal", "config": {"stddev": 0.001}}
UNIT_INTERVAL = {"class_name": "RandomUniform", "config": {"minval": 0.0, "maxval": 1.0}}
UNIT_GAIN_NORMAL = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1.0, "mode": "fan_in", "distribution": "untruncated_normal"},
}


@keras.saving.register_keras_serializable("zoo")
class IRNN(Elman):
    """A rectified Elman network that starts as a copy of its state.

        h = relu(W_h h_prev + W_x x + b)

    W_h starts as the identity and b at 0, so that states last and gradients neither vanish nor explode
    at first; W_x starts normal with a standard deviation of 0.001. A shorter memory starts as a scaled
    identity: `recurrent_initializer=keras.initializers.Identity(0.01)`.

    Source: Le et al. 2015, arXiv:1504.00941, sections 3 and 4.
    """

    def __init__(
        self,
        units: int,
        activation="relu",
        kernel_initializer=SMALL_NORMAL,
        recurrent_initializer="identity",
        **kwargs,
    ):
        super().__init__(
            units,
            activation,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            **kwargs,
        )


@keras.saving.register_keras_serializable("zoo")
class Bounded(keras.constraints.Constraint):
    """Keeps every weight within -limit and limit."""

    def __init__(self, limit: float):
        self.limit = limit

    def __call__(self, w):
        return tf.clip_by_value(w, -self.limit, self.limit)

    def get_config(self):
        return {"limit": self.limit}


@keras.saving.register_keras_serializable("zoo")
class IndRNN(Elman):
    """The independently recurrent network: each unit sees of the state only its own.

        h = relu(w * h_prev + W_x x + b)

    w is the weight `recurrent_weight` [units], which starts uniform between 0 and 1: units that remember
    for different lengths of time. There is no recurrent kernel, thus nothing for `recurrent_dropout`
    and `weight_drop`.

    Args:
        recurrent_limit: the largest magnitude that training leaves to w; none by default. The paper's is
            2 ** (1 / T) where gradients should survive T steps without exploding.

    Source: Li et al. 2018, arXiv:1803.04831, sections 3 and 4; initial values and the limit's 2 as in the
    authors' code.
    """

    def __init__(
        self,
        units: int,
        activation="relu",
        recurrent_initializer=UNIT_INTERVAL,
        recurrent_limit: float | None = None,
        **kwargs,
    ):
        super().__init__(units, activation, recurrent_initializer=recurrent_initializer, **kwargs)
        self.recurrent_limit = recurrent_limit

    def build(self, input_shape):
        features = self.features_of(input_shape)
        self.input_kernel = self.add_weight(
            name="input_kernel", shape=(features, self.units), initializer=self.kernel_initializer
        )
        self.recurrent_weight = self.add_weight(
            name="recurrent_weight",
            shape=(self.units,),
            initializer=self.recurrent_initializer,
            constraint=None if self.recurrent_limit is None else Bounded(self.recurrent_limit),
        )
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer=self.initialize_bias)

    def step_weights(self):
        # Not rounded to the precision of products: memory is the distance of a weight from 1.
        return {"recurrent_weight": tf.cast(self.recurrent_weight, self.state_dtype)}

    def step(self, projected, states):
        [previous_hidden] = states
        hidden = self.activation(projected + self.weight("recurrent_weight") * previous_hidden)
        return hidden, [hidden]

    def get_config(self):
        return {**super().get_config(), "recurrent_limit": self.recurrent_limit}


@keras.saving.register_keras_serializable("zoo")
class Antisymmetric(Cell):
    """The antisymmetric recurrent network: a stable differential equation, in steps of `epsilon`.

        h = h_prev + epsilon * tanh(A h_prev + U x + b)         with A = W - W^T - gamma I

    and with `gated=True`

        z = sigma(A h_prev + U_z x + b_z)                       update gate
        h = h_prev + epsilon * z * tanh(A h_prev + U_h x + b_h)

    The eigenvalues of W - W^T are imaginary, so that states neither grow nor shrink; diffusion `gamma`
    keeps the steps from growing. Both gates share A: the gated cell has the columns (update,
    candidate) in `input_kernel` and `bias`, but `recurrent_kernel` is [units, units]. W starts normal
    with a variance of 1 / units.

    Source: Chang et al. 2019, arXiv:1902.09689, equations of the "AntisymmetricRNN" and its gating.
    The paper chooses epsilon and gamma by validation; the defaults are among its candidates.
    """

    def __init__(
        self,
        units: int,
        epsilon: float = 0.01,
        gamma: float = 0.01,
        gated: bool = False,
        recurrent_initializer=UNIT_GAIN_NORMAL,
        **kwargs,
    ):
        super().__init__(units, recurrent_initializer=recurrent_initializer, **kwargs)
        self.epsilon = epsilon
        self.gamma = gamma
        self.gated = gated
        if gated:
            self.GATES = ("update", "candidate")

    def build(self, input_shape):
        gates = len(self.GATES)
        add_fused_weights(self, self.features_of(input_shape), inputs=gates, recurrent=1, biases=gates)

    def step_weights(self):
        kernel = self.cast(self.recurrent_kernel)
        diffusion = self.gamma * tf.eye(self.units, dtype=kernel.dtype)
        return {"recurrent_kernel": kernel - tf.transpose(kernel) - diffusion}

    def step(self, projected, states):
        [previous_hidden] = states
        recurrent = self.product(previous_hidden, "recurrent_kernel")
        if self.gated:
            projected_gate, projected_candidate = self.gates(projected)
            update_gate = tf.sigmoid(projected_gate + recurrent)
            change = update_gate * tf.tanh(projected_candidate + recurrent)
        else:
            change = tf.tanh(projected + recurrent)
        hidden = previous_hidden + self.epsilon * change
        return hidden, [hidden]

    def get_config(self):
        options = {"epsilon": self.epsilon, "gamma": self.gamma, "gated": self.gated}
        return {**super().get_config(), **options}
