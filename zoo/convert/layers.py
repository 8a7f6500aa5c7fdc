"""What layers of the zoo, of Keras and of PyTorch have in common: lists and directions of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras.layers import Layer

from zoo.cells import CELLS
from zoo.recurrence import Recurrent

# What layers of the zoo and of Keras both have, besides a name and a dtype.
OPTIONS = ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask")


def listed(layers: Layer | Iterable[Layer]) -> list[Layer]:
    if isinstance(layers, keras.Sequential):
        return list(layers.layers)
    return [layers] if isinstance(layers, Layer) else list(layers)


def each_direction(layer: Layer, convert: Callable[[Layer], Layer]) -> Layer:
    """What `convert` makes of a layer, or of both that a bidirectional one has."""
    if not isinstance(layer, keras.layers.Bidirectional):
        return convert(layer)
    forward, backward = convert(layer.forward_layer), convert(layer.backward_layer)
    return bidirectional(forward, backward, merge_mode=layer.merge_mode, name=layer.name)


def bidirectional(forward, backward, **options) -> keras.layers.Bidirectional:
    """Both layers, which are built, as one."""
    both = keras.layers.Bidirectional(forward, backward_layer=backward, dtype=forward.dtype_policy, **options)
    # Keras makes the forward layer anew, without its weights.
    both.build(input_shape(forward))
    both.forward_layer.cell.set_weights(forward.cell.get_weights())
    return both


def input_shape(layer) -> tuple[int | None, None, int]:
    """The shape of the inputs that a layer is built for."""
    batch_size = layer.states[0].shape[0] if layer.stateful else None
    return batch_size, None, layer.cell.weights[0].shape[0]  # the first is the inputs' kernel


def options_of(layer) -> dict[str, Any]:
    options = {name: getattr(layer, name) for name in OPTIONS}
    return {"name": layer.name, "dtype": layer.dtype_policy, **options}


def require_built(layer) -> None:
    if not layer.cell.built:
        raise ValueError(f"{layer.name} has no weights yet: build it, or call it once")


def name_of_cell(layer) -> str:
    """The name in CELLS of the cell that a layer of the zoo runs."""
    if not isinstance(layer, Recurrent):
        expected = "a Recurrent, or a keras.layers.Bidirectional of two"
        raise ValueError(f"{layer.name}: expected {expected}; got {type(layer).__name__}")
    require_built(layer)
    return next(name for name, cell in CELLS.items() if cell is type(layer.cell))
