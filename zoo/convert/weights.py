"""A cell's weights as Keras orders them, which is half way between the zoo and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from zoo.cells import CELLS, Cell

Array = np.ndarray

NUMBER_OF_GATES = {"elman": 1, "gru": 3, "gru_reset_after": 3, "lstm": 4, "projected_lstm": 4}


class Weights(NamedTuple):
    """Columns in Keras's order of gates; a GRU's update gate is z = 1 - u.

    kernel [features, gates * units]; recurrent_kernel [output size, gates * units]; bias
    [2, gates * units], b_ih and b_hh; projection [units, output size] of an LSTM that has one.
    """

    kernel: Array
    recurrent_kernel: Array
    bias: Array
    projection: Array | None = None


def cell_with(name: str, weights: Weights, **options) -> Cell:
    """A cell of the zoo, by its name in CELLS, that has these weights."""
    units = weights.kernel.shape[1] // NUMBER_OF_GATES[name]
    if weights.projection is not None:
        options["projection"] = weights.projection.shape[1]
    cell = CELLS[name](units, **options)
    cell.build((None, weights.kernel.shape[0]))
    values = _values(name, weights)
    for variable in cell.trainable_weights:
        variable.assign(values[variable.name])
    return cell


def weights_of(name: str, cell: Cell) -> Weights:
    """The weights of a cell: the way back of `cell_with`."""
    values = {variable.name: variable.numpy() for variable in cell.trainable_weights}
    if NUMBER_OF_GATES[name] == 3:
        values = _update_negated(values)
    second_bias = np.zeros_like(values["bias"])
    if name == "gru_reset_after":
        second_bias[-cell.units :] = values["recurrent_bias"]
    bias = np.stack([values["bias"], second_bias])
    return Weights(values["input_kernel"], values["recurrent_kernel"], bias, values.get("projection_kernel"))


def _values(name: str, weights: Weights) -> dict[str, Array]:
    """Values of a cell's variables by their names."""
    bias, second_bias = weights.bias
    values = {"input_kernel": weights.kernel, "recurrent_kernel": weights.recurrent_kernel}
    if weights.projection is not None:
        values["projection_kernel"] = weights.projection
    if name == "gru_reset_after":
        shared, values["recurrent_bias"] = np.split(second_bias, [2 * len(second_bias) // 3])
        second_bias = np.concatenate([shared, np.zeros_like(values["recurrent_bias"])])
    # Where there is no second bias nothing is added: -0.0 + 0.0 is another number.
    values["bias"] = np.where(second_bias == 0, bias, bias + second_bias)
    return _update_negated(values) if NUMBER_OF_GATES[name] == 3 else values


def _update_negated(values: Mapping[str, Array]) -> dict[str, Array]:
    """From an update gate z to u = 1 - z, and back: 1 - sigma(x) = sigma(-x)."""
    negated = {}
    for name in ("input_kernel", "recurrent_kernel", "bias"):
        update, others = np.split(values[name], [values[name].shape[-1] // 3], axis=-1)
        negated[name] = np.concatenate([-update, others], axis=-1)
    return {**values, **negated}
