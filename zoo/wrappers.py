"""What is built around recurrences: both directions of time, and stacks of layers."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from zoo.cells.base import Cell, GivenWeights, step_weights_from
from zoo.named_states import DIRECTIONS, NamedStates, States, state_names
from zoo.skips import SKIPS


@keras.saving.register_keras_serializable("zoo")
class Bidirectional(NamedStates):
    """A cell that reads forwards, and a copy of it with weights of its own that reads backwards.

        h_t = merge(RNN_forward(x_1 ... x_t), RNN_backward(x_T ... x_t))

    `merge` is "concat", "sum" or "mean". Both directions pass over masked steps, so it does not matter
    on which side a sequence is padded.

    Shapes: [batch, time, features] -> outputs [batch, time, output_size], and the final states by name,
    [batch, n] each: "forward/hidden", "backward/hidden" and so on. Backwards, the first step is the last
    one read.

    Raises:
        ValueError: unknown merge mode; states that are missing, unknown or of another size.

    Source: Schuster and Paliwal 1997, "Bidirectional recurrent neural networks".
    """

    def __init__(self, cell: Cell, merge: str = "concat", recompute_every: int = 0, **kwargs):
        super().__init__(merge, recompute_every, **kwargs)
        self.cell = cell
        self.add_recurrents(DIRECTIONS, cell)

    @property
    def output_size(self) -> int:
        return self.merged_size(DIRECTIONS)

    def build(self, inputs_shape, initial_state_shape=None):
        for recurrent in self.recurrents.values():
            recurrent.build(inputs_shape)

    def call(self, inputs, initial_state=None, mask=None, training=False):
        if initial_state is None:
            initial_state = self.get_initial_state(tf.shape(inputs)[0])
        return self.run(DIRECTIONS, inputs, self.checked(initial_state), mask, training)

    def get_config(self):
        return {**super().get_config(), "cell": keras.saving.serialize_keras_object(self.cell)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("cell")), **config)


@keras.saving.register_keras_serializable("zoo")
class Stack(NamedStates):
    """A multi-layer recurrence: what comes of each layer is the input of the next.

        x_0 = inputs,   x_l = skip(x_(l-1), RNN_l(dropout(x_(l-1))))

    `skip` is a connection around each layer, of zoo.skips. Dropout falls on the connections between
    layers only, never on those between time steps (Zaremba et al. 2014, arXiv:1409.2329).

    Args:
        cells: one a layer, of any kinds and sizes.
        skip: "none", "residual", "dense" or "highway".
        dropout: share of the values dropped of each layer's inputs.
        input_dropout: that of the first layer's inputs, where it is to differ.
        locked_dropout: drop the same values at all time steps of a sequence (Gal and Ghahramani 2016,
            arXiv:1512.05287), not others at each.
        bidirectional: a copy of each cell reads backwards, as in `Bidirectional`.
        merge: how the outputs of the two directions come together: "concat", "sum" or "mean".
        recompute_every: of each `Recurrent`.

    Shapes: [batch, time, features] -> outputs [batch, time, output_size], and the final states by name,
    [batch, n] each: "layer_0/hidden" and so on; if bidirectional, "layer_0/forward/hidden". The stack
    has its `output_size` once it is built.

    Raises:
        ValueError: unknown skip or merge mode; states that are missing, unknown or of another size.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        skip: str = "none",
        dropout: float = 0.0,
        input_dropout: float | None = None,
        locked_dropout: bool = False,
        bidirectional: bool = False,
        merge: str = "concat",
        recompute_every: int = 0,
        **kwargs,
    ):
        super().__init__(merge, recompute_every, **kwargs)
        if skip not in SKIPS:
            raise ValueError(f"skip must be one of {', '.join(SKIPS)}; got {skip!r}")
        if not cells:
            raise ValueError("a stack needs at least one cell")
        self.cells = list(cells)
        self.skip = skip
        self.dropout = dropout
        self.input_dropout = dropout if input_dropout is None else input_dropout
        self.locked_dropout = locked_dropout
        self.bidirectional = bidirectional
        self.dropouts, self.skips = [], []
        for index, cell in enumerate(self.cells):
            self.add_recurrents(self._places(index), cell)
            rate = dropout if index else self.input_dropout
            options = {"dtype": self.dtype_policy}
            self.dropouts.append(dropout_layer(rate, locked_dropout, name=f"dropout_{index}", **options))
            self.skips.append(SKIPS[skip](name=f"skip_{index}", **options))

    def _places(self, index: int) -> list[str]:
        layer = f"layer_{index}"
        return [f"{layer}/{direction}" for direction in DIRECTIONS] if self.bidirectional else [layer]

    def build(self, inputs_shape, initial_state_shape=None):
        shape = tuple(inputs_shape)
        for index, skip in enumerate(self.skips):
            places = self._places(index)
            for place in places:
                self.recurrents[place].build(shape)
            skip.build(shape, (*shape[:-1], self.merged_size(places)))
            shape = (*shape[:-1], skip.size)
        self.output_size = shape[-1]

    def call(self, inputs, initial_state=None, mask=None, training=False):
        if initial_state is None:
            initial_state = self.get_initial_state(tf.shape(inputs)[0])
        states = self.checked(initial_state)
        final_states: States = {}
        for index, (dropout, skip) in enumerate(zip(self.dropouts, self.skips, strict=True)):
            dropped = dropout(inputs, training=training)
            outputs, new_states = self.run(self._places(index), dropped, states, mask, training)
            inputs = skip(inputs, outputs)
            final_states |= new_states
        return inputs, final_states

    def step(self, inputs, states: States, step_weights=None) -> tuple[tf.Tensor, States]:
        """One time step: (inputs [batch, features], states) -> (output [batch, output_size], new states).

        A loop around it passes what `step_weights` gave, so that the weights are prepared once.

        Raises:
            ValueError: the stack is bidirectional; or as when called.
        """
        if self.bidirectional:
            raise ValueError(f"{self.name}: a bidirectional stack reads whole sequences, not single steps")
        states = self.checked(states)
        new_states: States = {}
        for index, weights in enumerate(step_weights or self.step_weights()):
            cell = self.cells[index]
            names = state_names(f"layer_{index}", cell)
            with step_weights_from(GivenWeights(weights)):
                output, cell_states = cell.advance(cell.project(inputs), [states[name] for name in names])
            inputs = self.skips[index](inputs, output)
            new_states |= dict(zip(names, cell_states, strict=True))
        return inputs, new_states

    def layer_variables(self) -> list[list[keras.Variable]]:
        """The trainable weights of each layer, its skip connection's among them."""
        return [
            [
                *(v for place in self._places(index) for v in self.recurrents[place].trainable_variables),
                *skip.trainable_variables,
            ]
            for index, skip in enumerate(self.skips)
        ]

    def step_weights(self) -> list[dict[str, tf.Tensor]]:
        return [cell.step_weights() for cell in self.cells]

    def get_config(self):
        options = ("skip", "dropout", "input_dropout", "locked_dropout", "bidirectional")
        return {
            **super().get_config(),
            "cells": [keras.saving.serialize_keras_object(cell) for cell in self.cells],
            **{name: getattr(self, name) for name in options},
        }

    @classmethod
    def from_config(cls, config):
        cells = [keras.saving.deserialize_keras_object(cell) for cell in config.pop("cells")]
        return cls(cells, **config)


def dropout_layer(rate: float, locked: bool, **kwargs) -> keras.layers.Dropout:
    """Dropout of [batch, time, units]; locked: of the same values at all time steps of a sequence."""
    return (keras.layers.SpatialDropout1D if locked else keras.layers.Dropout)(rate, **kwargs)
