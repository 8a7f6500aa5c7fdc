"""What layers of the zoo, of Keras and of PyTorch have in common: lists and directions of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras.layers import Layer

from zoo.cells import CELLS
from zoo.recurrence import Recurrent
from zoo.wrappers import Bidirectional, Stack

# What layers of the zoo and of Keras both have, besides a name and a dtype.
OPTIONS = ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask")


def listed(layers: Layer | Iterable[Layer]) -> list[Layer]:
    """Layers, each a recurrent one or a keras.layers.Bidirectional."""
    if isinstance(layers, Stack | Bidirectional):
        return _unwrapped(layers)
    if isinstance(layers, keras.Sequential):
        return list(layers.layers)
    return [layers] if isinstance(layers, Layer) else list(layers)


def _unwrapped(wrapper: Stack | Bidirectional) -> list[Layer]:
    """The layers of one of the zoo's wrappers, with its weights."""
    if isinstance(wrapper, Stack) and wrapper.skip != "none":
        raise ValueError(f"{wrapper.name}: layers with skip={wrapper.skip!r} are more than a list of them")
    recurrents = []
    for inner in wrapper.recurrents.values():
        require_built(inner)
        options = {"name": inner.name, "dtype": inner.dtype_policy, "go_backwards": inner.go_backwards}
        recurrents.append(Recurrent(inner.cell, return_sequences=True, **options))
    if isinstance(wrapper, Stack) and not wrapper.bidirectional:
        return recurrents
    merge_mode = {"mean": "ave"}.get(wrapper.merge, wrapper.merge)
    pairs = zip(recurrents[::2], recurrents[1::2], strict=True)
    return [bidirectional(forward, backward, merge_mode=merge_mode) for forward, backward in pairs]


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
    """The name of the cell that a layer of the zoo runs: that in CELLS, where it is one of these."""
    if not isinstance(layer, Recurrent):
        expected = "a Recurrent, or a keras.layers.Bidirectional of two"
        raise ValueError(f"{layer.name}: expected {expected}; got {type(layer).__name__}")
    require_built(layer)
    names = (name for name, cell in CELLS.items() if cell is type(layer.cell))
    return next(names, type(layer.cell).__name__)


def assign_weights(target: Layer | Iterable[Layer], layers: Layer | Iterable[Layer]) -> None:
    """Give layers of the zoo the weights of others of the same cells and sizes, a `Stack` those of a list.

    Raises:
        ValueError: `target` is not built, or has other cells or sizes.
    """
    old, new = _recurrents(target), _recurrents(layers)
    if len(old) != len(new):
        raise ValueError(f"expected weights of {len(old)} recurrences, got those of {len(new)}")
    kinds = [(name_of_cell(ours), name_of_cell(theirs)) for ours, theirs in zip(old, new, strict=True)]
    for ours, theirs, (kind, other_kind) in zip(old, new, kinds, strict=True):
        shapes, other_shapes = ([tuple(w.shape) for w in layer.cell.weights] for layer in (ours, theirs))
        if (kind, shapes) != (other_kind, other_shapes):
            expected = f"expected {kind} with weights {shapes}"
            raise ValueError(f"{ours.name}: {expected}; got {other_kind} with {other_shapes}")
    for ours, theirs in zip(old, new, strict=True):
        ours.cell.set_weights(theirs.cell.get_weights())


def _recurrents(layers) -> list[Recurrent]:
    """All recurrences of layers themselves, forwards before backwards."""
    if isinstance(layers, Stack | Bidirectional):
        return list(layers.recurrents.values())
    found = []
    for layer in listed(layers):
        both = isinstance(layer, keras.layers.Bidirectional)
        found += [layer.forward_layer, layer.backward_layer] if both else [layer]
    return found
