"""The recurrent stack that every task model has, by the options that a user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import keras

from zoo.cells import CELLS, Cell
from zoo.character_cnn import CharacterCNN
from zoo.embedding import Embedding
from zoo.heads import HEADS, OutputLayer
from zoo.heads.base import unit_variance
from zoo.wrappers import Stack, dropout_layer

# What makes a vector of a word.
INPUT_LAYERS: dict[str, type[keras.layers.Layer]] = {
    "embedding": Embedding,
    "character_cnn": CharacterCNN,
}


@dataclass(frozen=True)
class StackOptions:
    """What a stack is made of. Fields that training's configuration has, too, have the same names there.

    Attributes:
        cell, cell_options: a name of zoo.cells.CELLS, and arguments of that class beyond `units`.
        layers, units, skip, bidirectional, locked_dropout, recompute_every: see `Stack`.
        dropout: on the connections between the layers, none of them through time.
        input_dropout: on the first layer's inputs; -1 stands for `dropout`.
        recurrent_dropout, zoneout, weight_drop: of the cells, where not 0.
        initializer_scale: weights start uniform in [-scale, scale], but for an LSTM's `forget_bias`; 0 for
            each layer's own start.
        kernel_initializer, recurrent_initializer, bias_initializer: names of Keras initializers for the
            cells' weights, where not empty.
        precision: a Keras dtype policy.
    """

    cell: str = "lstm"
    cell_options: Mapping[str, Any] = field(default_factory=dict)
    layers: int = 1
    units: int = 256
    skip: str = "none"
    bidirectional: bool = False
    dropout: float = 0.0
    input_dropout: float = -1.0
    locked_dropout: bool = False
    recurrent_dropout: float = 0.0
    zoneout: float = 0.0
    weight_drop: float = 0.0
    initializer_scale: float = 0.0
    kernel_initializer: str = ""
    recurrent_initializer: str = ""
    bias_initializer: str = ""
    precision: str = "float32"
    recompute_every: int = 0

    @classmethod
    def chosen(cls, options: Mapping[str, Any], further: Sequence[str]) -> dict[str, Any]:
        """Those of the options that are a stack's or among further names."""
        names = [*further, *(item.name for item in fields(cls))]
        return {name: options[name] for name in names if name in options}

    def cells(self, last_units: int = 0) -> list[Cell]:
        """One a layer; the last may be of another size than `units`.

        Raises ValueError where the cell cannot be as it was asked for.
        """
        make, arguments = CELLS[self.cell], self._cell_arguments
        units = [self.units] * (self.layers - 1) + [last_units or self.units]
        return [
            make(size, name=f"{self.cell}_{index}", dtype=self.precision, **arguments())
            for index, size in enumerate(units)
        ]

    def embedding(
        self, name: str, vocabulary_size: int, size: int, start: Any = "uniform", is_tied: bool = False
    ) -> keras.layers.Layer:
        """Vectors of `size` that begin as `start` says, unless `initializer_scale` does.

        Where they are an output layer's, too, they begin as those do.
        """
        layer, start = (keras.layers.Embedding, unit_variance(size)) if is_tied else (Embedding, start)
        embedding = layer(
            vocabulary_size,
            size,
            embeddings_initializer=uniform(self.initializer_scale) or start,
            name=name,
            dtype=self.precision,
        )
        embedding.build((None, None))
        return embedding

    def character_cnn(
        self, name: str, spellings: Sequence[bytes], size: int, further: Mapping[str, Any]
    ) -> CharacterCNN:
        """The layer that reads the bytes of words, built; `further` are arguments of its class."""
        start = uniform(self.initializer_scale)
        layer = CharacterCNN(spellings, size, start, name=name, dtype=self.precision, **further)
        layer.build()
        return layer

    def dense(self, name: str, size: int, inputs: int, activation: str | None = None) -> keras.layers.Dense:
        """A layer of `size` outputs, built, that computes in the precision of the weights."""
        layer = keras.layers.Dense(
            size,
            activation,
            kernel_initializer=uniform(self.initializer_scale) or "glorot_uniform",
            name=name,
            dtype=self.weights_dtype,
        )
        layer.build((None, inputs))
        return layer

    def softmax(
        self,
        vocabulary_size: int,
        inputs: int,
        tied_to: keras.layers.Embedding | None,
        kind: str = "full",
        further: Mapping[str, Any] | None = None,
    ) -> OutputLayer:
        """The output layer over a vocabulary, built, that computes in the precision of the weights.

        `kind` is a name of zoo.heads.HEADS, `further` are arguments of that class.
        """
        head = HEADS[kind](
            vocabulary_size,
            tied_to,
            uniform(self.initializer_scale),
            name="head",
            dtype=self.weights_dtype,
            **(further or {}),
        )
        head.build((None, inputs))
        return head

    @property
    def weights_dtype(self) -> str:
        return keras.dtype_policies.get(self.precision).variable_dtype

    def output_dropout(self, rate: float, locked: bool) -> keras.layers.Dropout:
        """Dropout of what an output layer reads; -1 stands for `dropout`."""
        rate = self.dropout if rate < 0 else rate
        return dropout_layer(rate, locked, name="output_dropout", dtype=self.weights_dtype)

    def stack(self, cells: Sequence[Cell], features: int, name: str = "stack") -> Stack:
        """The cells as a stack, built for inputs of size `features`.

        Raises ValueError where a cell has nothing to drop, or cannot start as it was asked to.
        """
        stack = Stack(
            cells,
            self.skip,
            self.dropout,
            None if self.input_dropout < 0 else self.input_dropout,
            self.locked_dropout,
            self.bidirectional,
            recompute_every=self.recompute_every,
            name=name,
            dtype=self.precision,
        )
        stack.build((None, None, features))
        for cell in cells:  # fails here, and not at the first step
            cell.given_weights(training=True, batch_size=1)
        return stack

    def _cell_arguments(self) -> dict[str, Any]:
        starts = ("kernel_initializer", "recurrent_initializer", "bias_initializer")
        names = (*starts, "recurrent_dropout", "zoneout", "weight_drop")
        scaled = {name: uniform(self.initializer_scale) for name in starts} if self.initializer_scale else {}
        given = {name: value for name in names if (value := getattr(self, name))}
        return {**scaled, **given, **self.cell_options}


def uniform(scale: float) -> keras.initializers.Initializer | None:
    """How one weight starts. Never shared: an initializer gives all weights of a shape the same numbers."""
    return keras.initializers.RandomUniform(-scale, scale) if scale else None
