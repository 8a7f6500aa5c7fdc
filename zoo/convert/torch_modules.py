"""From and to the state dicts of torch.nn.RNN, LSTM and GRU, which PyTorch is not needed for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
from keras.layers import Layer
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from zoo.cells import Cell
from zoo.convert.layers import bidirectional, input_shape, listed, name_of_cell
from zoo.convert.weights import Weights, cell_with, weights_of
from zoo.recurrence import Recurrent

Array = np.ndarray

NONLINEARITIES = ("tanh", "relu")
NAMES_BY_GATES = {1: "elman", 3: "gru_reset_after", 4: "lstm"}
TORCH_NAMES = (*NAMES_BY_GATES.values(), "projected_lstm")


def from_torch(tensors: Mapping[str, Array], prefix: str = "", nonlinearity: str = "tanh") -> list[Layer]:
    """Layers of the zoo that give the same outputs as a module of PyTorch; like it, they return sequences.

    Args:
        tensors: the state dict, of arrays (or tensors in the CPU's memory). Their shapes tell everything but
        nonlinearity: "tanh" or "relu", of a torch.nn.RNN.
        prefix: what the module's names begin with where others are beside them, as "encoder."

    Raises:
        ValueError: a tensor is missing, unexpected or of a wrong shape.
    """
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(f"nonlinearity must be one of {', '.join(NONLINEARITIES)}; got {nonlinearity!r}")
    state = _StateDict(tensors, prefix)
    suffixes = ["", "_reverse"] if "weight_ih_l0_reverse" in state else [""]
    layers: list[Layer] = []
    features = None
    while not layers or state.names():
        endings = [f"_l{len(layers)}{suffix}" for suffix in suffixes]
        cells = [_cell(state, ending, features, nonlinearity) for ending in endings]
        layers.append(_layer(cells))
        features = sum(cell.output_size for cell in cells)
    return layers


def to_torch(layers: Layer | Iterable[Layer], prefix: str = "") -> dict[str, Array]:
    """The state dict of a module of PyTorch that gives the same outputs: the way back of `from_torch`.

    Raises:
        ValueError: a layer is not built or nothing that PyTorch has, or the layers are not all alike.
    """
    stack = [_directions(layer) for layer in listed(layers)]
    _require_alike(stack)
    tensors = {}
    for index, directions in enumerate(stack):
        for suffix, recurrent in zip(("", "_reverse"), directions, strict=False):
            for name, tensor in _tensors(recurrent).items():
                tensors[f"{prefix}{name}_l{index}{suffix}"] = tensor
    return tensors


def load_torch(path: str | os.PathLike, prefix: str = "", nonlinearity: str = "tanh") -> list[Layer]:
    """`from_torch` of a .safetensors file. Raises ValueError, too, where that is damaged."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{os.fspath(path)} is no .safetensors file, or damaged: {error}") from error
    return from_torch(tensors, prefix, nonlinearity)


def save_torch(path: str | os.PathLike, layers: Layer | Iterable[Layer], prefix: str = "") -> None:
    """Write what `to_torch` gives as a .safetensors file, which safetensors.torch.load_file reads."""
    save_file(to_torch(layers, prefix), path, metadata={"format": "pt"})


class _StateDict:
    """The tensors of a module, taken one after the other."""

    def __init__(self, tensors: Mapping[str, Array], prefix: str):
        self.prefix = prefix
        names = [name for name in tensors if name.startswith(prefix)]
        self.tensors = {name[len(prefix) :]: tensors[name] for name in names}
        if "weight_ih_l0" not in self.tensors:
            raise ValueError(f"{prefix}weight_ih_l0 is missing; the tensors are: {', '.join(tensors)}")

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def names(self) -> list[str]:
        """What is left to take; names with a dot belong to other modules."""
        return [name for name in self.tensors if "." not in name]

    def take(self, name: str, *shape: int | None) -> Array:
        """The tensor of a name. Its sizes have to be those of `shape`, where not None."""
        if name not in self.tensors:
            raise ValueError(f"{self.prefix}{name} is missing; left are: {', '.join(self.names())}")
        found = np.asarray(self.tensors.pop(name))
        if found.ndim != len(shape) or any(
            size not in (None, actual) for size, actual in zip(shape, found.shape, strict=True)
        ):
            expected = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"{self.prefix}{name} has shape {found.shape}, expected ({expected})")
        return found


def _cell(state: _StateDict, ending: str, features: int | None, nonlinearity: str) -> Cell:
    """One direction of one layer: the tensors whose names end in `ending`."""
    weight_hh = state.take(f"weight_hh{ending}", None, None)
    width, output_size = weight_hh.shape
    projected = f"weight_hr{ending}" in state
    projection = state.take(f"weight_hr{ending}", output_size, None).T if projected else None
    gates, rest = divmod(width, output_size if projection is None else len(projection))
    if rest or gates not in NAMES_BY_GATES or (projected and gates != 4):
        name = f"{state.prefix}weight_hh{ending}"
        raise ValueError(f"{name} has shape {weight_hh.shape}, which is that of no RNN, LSTM or GRU")
    weight_ih = state.take(f"weight_ih{ending}", width, features)
    biases = [np.zeros(width, weight_ih.dtype)] * 2
    if f"bias_ih{ending}" in state:
        biases = [state.take(f"{name}{ending}", width) for name in ("bias_ih", "bias_hh")]
    name = "projected_lstm" if projected else NAMES_BY_GATES[gates]
    kernel, recurrent_kernel, bias = _gates_swapped(name, [weight_ih.T, weight_hh.T, np.stack(biases)])
    weights = Weights(kernel, recurrent_kernel, bias, projection)
    options = {"activation": nonlinearity} if name == "elman" else {}
    if weight_ih.dtype == "bfloat16":
        options["recurrent_initializer"] = "glorot_uniform"  # orthogonal is not made in bfloat16
    return cell_with(name, weights, dtype=str(weight_ih.dtype), **options)


def _layer(cells: Sequence[Cell]) -> Layer:
    forward, *backward = [
        Recurrent(cell, return_sequences=True, go_backwards=index > 0, dtype=cell.dtype_policy)
        for index, cell in enumerate(cells)
    ]
    return bidirectional(forward, *backward) if backward else forward


def _gates_swapped(name: str, arrays: Sequence[Array]) -> list[Array]:
    """From PyTorch's order of a GRU's gates, reset first, to Keras's, update first, and back."""
    if name != "gru_reset_after":
        return list(arrays)
    return [np.concatenate([np.split(array, 3, axis=-1)[gate] for gate in (1, 0, 2)], -1) for array in arrays]


def _directions(layer: Layer) -> list[Recurrent]:
    """A layer, or both of a bidirectional one, as far as PyTorch has such a thing."""
    if not isinstance(layer, keras.layers.Bidirectional):
        directions = [layer]
    elif layer.merge_mode == "concat":
        directions = [layer.forward_layer, layer.backward_layer]
    else:
        raise ValueError(f"{layer.name}: PyTorch has merge_mode='concat' only; got {layer.merge_mode!r}")
    for index, recurrent in enumerate(directions):
        name = name_of_cell(recurrent)
        if name not in TORCH_NAMES:
            raise ValueError(f"{recurrent.name}: PyTorch has {', '.join(TORCH_NAMES)}; no {name}")
        if name == "elman" and _activation(recurrent) not in NONLINEARITIES:
            allowed = " or ".join(NONLINEARITIES)
            raise ValueError(f"{recurrent.name}: PyTorch has {allowed}; no {_activation(recurrent)}")
        if recurrent.go_backwards != (index > 0):
            raise ValueError(f"{recurrent.name}: in PyTorch only the second of two directions goes backwards")
    return directions


def _require_alike(stack: Sequence[Sequence[Recurrent]]) -> None:
    """All layers are of one kind, and each takes what the one before gives."""
    if not stack:
        raise ValueError("there are no layers to convert")
    expected_kind = _kind(stack[0], stack[0][0])
    features = input_shape(stack[0][0])[-1]
    for directions in stack:
        for recurrent in directions:
            kind, found = _kind(directions, recurrent), input_shape(recurrent)[-1]
            if kind != expected_kind:
                first = stack[0][0].name
                raise ValueError(f"{recurrent.name} is {kind}, but {first} is {expected_kind}")
            if found != features:
                raise ValueError(f"{recurrent.name} takes {found} features, expected {features}")
        features = sum(recurrent.cell.output_size for recurrent in directions)


def _kind(directions: Sequence[Recurrent], recurrent: Recurrent) -> str:
    """What PyTorch wants to be the same in all layers, in words."""
    name, cell = name_of_cell(recurrent), recurrent.cell
    kind = f"{_activation(recurrent)} {name}" if name == "elman" else name
    return f"{kind} of {cell.units} units, {cell.output_size} outputs, {len(directions)} direction(s)"


def _activation(recurrent: Recurrent) -> str:
    return keras.activations.serialize(recurrent.cell.activation)


def _tensors(recurrent: Recurrent) -> dict[str, Array]:
    """The tensors of one direction of one layer, by the beginnings of their names."""
    name = name_of_cell(recurrent)
    weights = weights_of(name, recurrent.cell)
    kernel, recurrent_kernel, bias = _gates_swapped(name, weights[:3])
    tensors = {"weight_ih": kernel.T, "weight_hh": recurrent_kernel.T, "bias_ih": bias[0], "bias_hh": bias[1]}
    if weights.projection is not None:
        tensors["weight_hr"] = weights.projection.T
    # Files of tensors want them without gaps.
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
