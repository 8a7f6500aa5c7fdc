"""The simple recurrent network."""

from __future__ import annotations

import keras

from zoo.cells.base import Cell


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
