"""From and to layers of Keras."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import keras
import numpy as np
from keras.layers import Layer

from zoo.convert.layers import (
    each_direction,
    input_shape,
    listed,
    name_of_cell,
    options_of,
    require_built,
)
from zoo.convert.weights import Weights, cell_with, weights_of
from zoo.recurrence import Recurrent

KERAS_LAYERS = {
    "elman": keras.layers.SimpleRNN,
    "lstm": keras.layers.LSTM,
    "gru": partial(keras.layers.GRU, reset_after=False),
    "gru_reset_after": keras.layers.GRU,
}


def from_keras(layers: Layer | Iterable[Layer]) -> list[Layer]:
    """Layers of the zoo that give the same outputs as those of Keras.

    Args:
        layers: a SimpleRNN, LSTM or GRU, or a Bidirectional of these; or a Sequential or list of them.

    Raises:
        ValueError: a layer is of another kind, not built, or has activations that the zoo's has not.
    """
    return [each_direction(layer, _recurrent) for layer in listed(layers)]


def to_keras(layers: Layer | Iterable[Layer]) -> list[Layer]:
    """Layers of Keras that give the same outputs as those of the zoo: the way back of `from_keras`.

    Raises:
        ValueError: a layer is not built, or is nothing that Keras has.
    """
    return [each_direction(layer, _keras_layer) for layer in listed(layers)]


def _recurrent(layer: Layer) -> Recurrent:
    name = _name_in_zoo(layer)
    require_built(layer)
    kernel, recurrent_kernel, *given = layer.cell.get_weights()
    bias = np.zeros([2, kernel.shape[1]], kernel.dtype)
    if given:
        bias[: np.ndim(given[0])] = given[0]  # [width], or both: [2, width]
    options = {"activation": layer.activation} if name == "elman" else {}
    cell = cell_with(name, Weights(kernel, recurrent_kernel, bias), dtype=layer.dtype_policy, **options)
    recurrent = Recurrent(cell, **options_of(layer))
    recurrent.build(input_shape(layer))
    return recurrent


def _name_in_zoo(layer: Layer) -> str:
    """The name in CELLS of the cell that does what a layer of Keras does."""
    if type(layer) is keras.layers.SimpleRNN:
        return "elman"
    if type(layer) not in (keras.layers.LSTM, keras.layers.GRU):
        expected = "a SimpleRNN, LSTM or GRU, or a Bidirectional of these"
        raise ValueError(f"{layer.name}: expected {expected}; got {type(layer).__name__}")
    for option, activation in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
        found = keras.activations.serialize(getattr(layer, option))
        if found != activation:
            raise ValueError(f"{layer.name}: the zoo has {option}={activation!r} only; got {found!r}")
    if type(layer) is keras.layers.LSTM:
        return "lstm"
    return "gru_reset_after" if layer.reset_after else "gru"


def _keras_layer(layer: Recurrent) -> Layer:
    name = name_of_cell(layer)
    if name not in KERAS_LAYERS:
        raise ValueError(f"{layer.name}: Keras has {', '.join(KERAS_LAYERS)}; no {name}")
    options = {"activation": layer.cell.activation} if name == "elman" else {}
    converted = KERAS_LAYERS[name](layer.cell.units, **options, **options_of(layer))
    converted.build(input_shape(layer))
    weights = weights_of(name, layer.cell)
    bias = weights.bias if name == "gru_reset_after" else weights.bias[0]
    converted.cell.set_weights([weights.kernel, weights.recurrent_kernel, bias])
    return converted
