"""The recurrent highway network."""

from __future__ import annotations

import keras
import tensorflow as tf

from zoo.cells.base import Cell
from zoo.cells.gru import interpolate
from zoo.cells.weights import add_fused_weights


@keras.saving.register_keras_serializable("zoo")
class RHN(Cell):
    """The recurrent highway network: `depth` highway layers from one state to the next.

        t_l = sigma(R_tl s_{l-1} + [W_t x] + b_tl)          transform gate: what is written
        c_l = sigma(R_cl s_{l-1} + [W_c x] + b_cl)          carry gate: what is kept
        h_l = tanh(R_hl s_{l-1} + [W_h x] + b_hl)           candidate
        s_l = t_l * h_l + c_l * s_{l-1}                     l = 1 .. depth; [...] only at l = 1

    s_0 is the previous state, s_depth the new one. With `coupled`, as in the paper's experiments,
    c_l = 1 - t_l, and there are no weights of a carry gate.

    `recurrent_kernel` and `bias` hold the layers one after the other, each with the columns of GATES.

    Args:
        depth: the number of highway layers; 10 was best in the paper.
        coupled: whether the carry gate is 1 - transform gate.
        transform_bias: the transform gates' bias at first; the paper uses -2 to -4, which keeps states
            as they are.

    Source: Zilly et al. 2016, arXiv:1607.03474, equations 6 to 9.
    """

    GATES: tuple[str, ...] = ("transform", "candidate")

    def __init__(
        self,
        units: int,
        depth: int = 10,
        coupled: bool = True,
        transform_bias: float = -2.0,
        **kwargs,
    ):
        super().__init__(units, **kwargs)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.depth = depth
        self.coupled = coupled
        self.transform_bias = transform_bias
        if not coupled:
            self.GATES = ("transform", "carry", "candidate")

    def build(self, input_shape):
        gates = len(self.GATES)
        layers = self.depth * gates
        add_fused_weights(self, self.features_of(input_shape), inputs=gates, recurrent=layers, biases=layers)

    def initialize_bias(self, shape, dtype=None):
        bias = super().initialize_bias(shape, dtype=dtype)
        is_transform_gate = tf.repeat([gate == "transform" for gate in self.GATES] * self.depth, self.units)
        return tf.where(is_transform_gate, tf.cast(self.transform_bias, bias.dtype), bias)

    def project(self, inputs):
        first_bias, *_ = tf.split(self.cast(self.bias), self.depth)
        return self.dense(inputs, self.input_kernel) + first_bias

    def step_weights(self):
        kernels = tf.split(self.cast(self.recurrent_kernel), self.depth, axis=-1)
        biases = tf.split(self.cast(self.bias), self.depth)
        layers = range(1, self.depth + 1)
        weights = {f"layer_{n}_kernel": kernel for n, kernel in zip(layers, kernels, strict=True)}
        # The first layer's bias is in the projection.
        return weights | {f"layer_{n}_bias": bias for n, bias in zip(layers[1:], biases[1:], strict=True)}

    def step(self, projected, states):
        [hidden] = states
        hidden = self.highway(hidden, projected + self.product(hidden, "layer_1_kernel"))
        for n in range(2, self.depth + 1):
            hidden = self.highway(
                hidden, self.product(hidden, f"layer_{n}_kernel") + self.weight(f"layer_{n}_bias")
            )
        return hidden, [hidden]

    def highway(self, carried: tf.Tensor, gates: tf.Tensor) -> tf.Tensor:
        """s_l from s_{l-1} and what is in the parentheses above."""
        if self.coupled:
            transform_gate, candidate = self.gates(gates)
            return interpolate(carried, tf.tanh(candidate), tf.sigmoid(transform_gate))
        transform_gate, carry_gate, candidate = self.gates(gates)
        return tf.sigmoid(transform_gate) * tf.tanh(candidate) + tf.sigmoid(carry_gate) * carried

    def get_config(self):
        return {
            **super().get_config(),
            "depth": self.depth,
            "coupled": self.coupled,
            "transform_bias": self.transform_bias,
        }
