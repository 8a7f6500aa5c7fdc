"""Fused weights of cells in which inputs, states and biases serve different numbers of gates."""

from __future__ import annotations

from zoo.cells.base import Cell, per_gate


def add_fused_weights(cell: Cell, features: int, inputs: int, recurrent: int, biases: int) -> None:
    """Gives `cell` its fused weights, of so many blocks of columns of `cell.units`.

    input_kernel [features, inputs * units], recurrent_kernel [units, recurrent * units], bias
    [biases * units].
    """
    cell.input_kernel = cell.add_weight(
        name="input_kernel", shape=(features, inputs * cell.units), initializer=cell.kernel_initializer
    )
    cell.recurrent_kernel = cell.add_weight(
        name="recurrent_kernel",
        shape=(cell.units, recurrent * cell.units),
        initializer=per_gate(cell.recurrent_initializer, recurrent),
    )
    cell.bias = cell.add_weight(name="bias", shape=(biases * cell.units,), initializer=cell.initialize_bias)


def independent(initializer, number: int = 1):
    """The same initializer with other numbers: Keras's give the same ones whenever they are called."""
    seed = getattr(initializer, "seed", None)
    if not isinstance(seed, int):
        return initializer
    return type(initializer).from_config({**initializer.get_config(), "seed": seed + number})
