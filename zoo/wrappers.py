"""What is built around recurrences: stacks of them."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from zoo.cells.base import Cell, GivenWeights, step_weights_from
from zoo.recurrence import Recurrent

SKIPS = ("none", "residual")


@keras.saving.register_keras_serializable("zoo")
class Stack(keras.layers.Layer):
    """A multi-layer recurrence: the outputs of each layer are the inputs of the next.

        x_0 = inputs,   x_l = RNN_l(dropout(x_(l-1))) [+ x_(l-1) with skip="residual"]

    A residual connection is made where a layer's input and output have the same size. Dropout falls
    on the connections between layers only, never on those between time steps (Zaremba et al. 2014,
    arXiv:1409.2329). `input_dropout` is that of the first layer's inputs, where it is to differ.

    Shapes: [batch, time, features] -> outputs [batch, time, units], and all layers' states in one
    list, [batch, n] each, in the order of `state_size`.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        skip: str = "none",
        dropout: float = 0.0,
        input_dropout: float | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.autocast = False  # states keep their precision
        if skip not in SKIPS:
            raise ValueError(f"skip must be one of {', '.join(SKIPS)}; got {skip!r}")
        if not cells:
            raise ValueError("a stack needs at least one cell")
        self.cells = list(cells)
        self.skip = skip
        self.dropout = dropout
        self.input_dropout = dropout if input_dropout is None else input_dropout
        self.layers, self.dropouts = [], []
        options = {"return_sequences": True, "return_state": True, "dtype": self.dtype_policy}
        for index, cell in enumerate(self.cells):
            self.layers.append(Recurrent(cell, name=f"layer_{index}", **options))
            rate = dropout if index else self.input_dropout
            self.dropouts.append(keras.layers.Dropout(rate, name=f"dropout_{index}", dtype=self.dtype_policy))
        self.supports_masking = True

    @property
    def state_size(self) -> list[int]:
        return [size for cell in self.cells for size in cell.state_size]

    @property
    def output_size(self) -> int:
        return self.cells[-1].output_size

    def get_initial_state(self, batch_size) -> list[tf.Tensor]:
        return [state for cell in self.cells for state in cell.get_initial_state(batch_size)]

    def build(self, inputs_shape, initial_state_shape=None):
        shape = tuple(inputs_shape)
        for layer in self.layers:
            layer.build(shape)
            shape = (*shape[:-1], layer.cell.output_size)

    def call(self, inputs, initial_state=None, mask=None, training=False):
        if initial_state is None:
            initial_state = self.get_initial_state(tf.shape(inputs)[0])
        final_states = []
        for layer, dropout, states in zip(
            self.layers, self.dropouts, self._by_layer(initial_state), strict=True
        ):
            outputs, *new_states = layer(
                dropout(inputs, training=training), initial_state=states, mask=mask, training=training
            )
            inputs = self._connected(inputs, outputs)
            final_states += new_states
        return inputs, final_states

    def step(self, inputs, states, step_weights=None):
        """One time step: (inputs [batch, features], states) -> (output [batch, units], new states).

        A loop around it passes what `step_weights` gave, so that the weights are prepared once.
        """
        new_states = []
        for cell, cell_states, weights in zip(
            self.cells, self._by_layer(states), step_weights or self.step_weights(), strict=True
        ):
            with step_weights_from(GivenWeights(weights)):
                output, cell_states = cell.advance(cell.project(inputs), cell_states)
            inputs = self._connected(inputs, output)
            new_states += cell_states
        return inputs, new_states

    def step_weights(self) -> list[dict[str, tf.Tensor]]:
        return [cell.step_weights() for cell in self.cells]

    def _connected(self, inputs, outputs):
        if self.skip == "residual" and inputs.shape[-1] == outputs.shape[-1]:
            return inputs + outputs
        return outputs

    def _by_layer(self, states):
        states = list(states)
        if len(states) != len(self.state_size):
            raise ValueError(f"{self.name}: expected {len(self.state_size)} states, got {len(states)}")
        split = iter(states)
        return [[next(split) for _ in cell.state_size] for cell in self.cells]

    def get_config(self):
        return {
            **super().get_config(),
            "cells": [keras.saving.serialize_keras_object(cell) for cell in self.cells],
            "skip": self.skip,
            "dropout": self.dropout,
            "input_dropout": self.input_dropout,
        }

    @classmethod
    def from_config(cls, config):
        cells = [keras.saving.deserialize_keras_object(cell) for cell in config.pop("cells")]
        return cls(cells, **config)
