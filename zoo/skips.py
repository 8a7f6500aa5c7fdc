"""Connections around the layers of a stack, by name: what the next layer reads beside a layer's outputs."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf


class Skip(keras.layers.Layer):
    """Called with a layer's inputs x [..., n] and its outputs RNN(x) [..., m], gives the next layer's inputs.

    This one is none: it gives RNN(x).
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, inputs_shape, outputs_shape):
        self.size = outputs_shape[-1]  # of what it gives

    def call(self, inputs, outputs):
        return outputs


class Residual(Skip):
    """x + RNN(x), where these are of one size; elsewhere RNN(x).

    Source: He et al. 2016, arXiv:1512.03385, equation 1.
    """

    def call(self, inputs, outputs):
        return inputs + outputs if inputs.shape[-1] == outputs.shape[-1] else outputs


class DenselyConnected(Skip):
    """[x, RNN(x)]: as x is such a concatenation, too, the stack's inputs and all layers' outputs so far.

    Source: Huang et al. 2017, arXiv:1608.06993, equation 2.
    """

    def build(self, inputs_shape, outputs_shape):
        self.size = inputs_shape[-1] + outputs_shape[-1]

    def call(self, inputs, outputs):
        return tf.concat([inputs, outputs], axis=-1)


class Highway(Skip):
    """T(x) * RNN(x) + (1 - T(x)) * x, where x and RNN(x) are of one size; elsewhere RNN(x).

        T(x) = sigma(W_T x + b_T)       transform gate

    The bias b_T starts at -1: at first, most of x passes (section 2.2 of the paper).

    Source: Srivastava et al. 2015, arXiv:1505.00387, equation 3; around recurrent layers, Zhang et
    al. 2016, arXiv:1510.08983. (The depth of Zilly et al. 2017, arXiv:1607.03474, lies within one
    step: that is a cell.)
    """

    def build(self, inputs_shape: Sequence[int | None], outputs_shape):
        super().build(inputs_shape, outputs_shape)
        if inputs_shape[-1] != outputs_shape[-1]:
            return
        start = keras.initializers.Constant(-1.0)
        self.transform_gate = keras.layers.Dense(
            self.size, "sigmoid", bias_initializer=start, name="transform_gate", dtype=self.dtype_policy
        )
        self.transform_gate.build(inputs_shape)

    def call(self, inputs, outputs):
        if inputs.shape[-1] != outputs.shape[-1]:
            return outputs
        return inputs + self.transform_gate(inputs) * (outputs - inputs)


SKIPS: dict[str, type[Skip]] = {
    "none": Skip,
    "residual": Residual,
    "dense": DenselyConnected,
    "highway": Highway,
}
