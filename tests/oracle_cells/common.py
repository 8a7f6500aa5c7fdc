"""What the cells' equations in NumPy share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class Gates:
    """W h_prev + U x + b of each gate, from the fused kernels."""

    def __init__(self, weights: dict[str, Array], inputs: Array, names: Sequence[str]):
        self.names = list(names)
        self.weights = weights
        self.inputs = inputs

    def __call__(self, gate: str, hidden: Array) -> Array:
        units = self.weights["recurrent_kernel"].shape[0]
        columns = slice(self.names.index(gate) * units, (self.names.index(gate) + 1) * units)
        input_kernel, recurrent_kernel, bias = (
            self.weights[name][..., columns] for name in ("input_kernel", "recurrent_kernel", "bias")
        )
        return hidden @ recurrent_kernel + self.inputs @ input_kernel + bias
