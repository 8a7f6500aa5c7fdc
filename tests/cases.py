"""The zoo's cells as their tests run them: each case of the oracles, with random weights and values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from oracles import CASES, ORACLES, run, weights_of

from zoo.cells import CELLS, Cell
from zoo.recurrence import Recurrent

BATCH, TIME, FEATURES, UNITS = 5, 4, 3, 4

# Padding on the right and on the left, a hole, and nothing at all.
MASK = np.array(
    [
        [True, True, True, True],
        [True, True, False, False],
        [False, False, True, True],
        [False, True, False, True],
        [False, False, False, False],
    ]
)

# Nothing is drawn at random, whatever a cell's own defaults are.
DETERMINISTIC = {"recurrent_dropout": 0.0, "zoneout": 0.0, "weight_drop": 0.0}


class Case(NamedTuple):
    """A cell and options that change its equations."""

    cell_name: str
    options: dict[str, Any]

    @classmethod
    def named(cls, name: str) -> Case:
        return cls(*CASES[name])

    def cell(self, units: int = UNITS, **options) -> Cell:
        return CELLS[self.cell_name](units, **{**DETERMINISTIC, **self.options, **options})

    def layer(self, dtype: str = "float64", **options) -> Recurrent:
        """Built, with the same random weights whenever it is called."""
        options = {"return_sequences": True, "return_state": True, **options}
        layer = Recurrent(self.cell(dtype=dtype), dtype=dtype, **options)
        layer.build((None, None, FEATURES))
        randomize(layer.cell)
        return layer

    def step(self, weights: dict[str, np.ndarray]) -> Callable:
        """(inputs, states) -> (output, new states), in NumPy."""
        return functools.partial(ORACLES[self.cell_name], weights, **self.options)

    def in_numpy(self, layer: Recurrent, inputs, states, mask=None) -> list[np.ndarray]:
        """What the layer should give: [outputs, *final states]."""
        step = self.step(weights_of(layer.cell))
        outputs, _, final_states = run(step, inputs, states, mask, layer.go_backwards)
        return [outputs, *final_states]


def randomize(layer: keras.layers.Layer, seed: int = 0, scale: float = 0.7):
    """Gives all weights of a layer new values, biases too; deterministic."""
    random = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(random.normal(scale=scale, size=weight.shape))
    return layer


def in_keras(layer: Recurrent) -> keras.layers.RNN:
    """The same cell, weights included, in Keras's own time loop."""
    ours_only = ("cell", "name", "recompute_every")
    config = {key: value for key, value in layer.get_config().items() if key not in ours_only}
    return keras.layers.RNN(layer.cell, **config)


def random_values(cell: Cell, batch: int = BATCH, time: int = TIME):
    """Inputs [batch, time, features] and states; a normalizer, which is divided by, is at least 1."""
    random = np.random.default_rng(1)
    inputs = random.normal(size=(batch, time, FEATURES))
    states = [random.normal(size=(batch, size)) for size in cell.state_size]
    names = dict(zip(cell.STATES, states, strict=True))
    if "normalizer" in names:
        names["normalizer"] += 1 - names["normalizer"].min()
    return inputs, states


def zero_states(cell: Cell, batch: int = BATCH) -> list[np.ndarray]:
    return [np.zeros((batch, size)) for size in cell.state_size]


def assert_close(actual: Sequence, expected: Iterable, tolerance: float = 1e-10, message: str = ""):
    for position, (ours, theirs) in enumerate(zip(actual, expected, strict=True)):
        assert ours.shape == theirs.shape, f"{message}, number {position}"
        np.testing.assert_allclose(
            ours, theirs, rtol=tolerance, atol=tolerance, err_msg=f"{message}, number {position}"
        )
