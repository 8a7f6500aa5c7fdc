"""The common part of wrappers: recurrences whose states go in and out by name, in both directions of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from zoo.cells.base import Cell
from zoo.recurrence import Recurrent

States = dict[str, tf.Tensor]

DIRECTIONS = ("forward", "backward")
MERGES = ("concat", "sum", "mean")
# Beyond the seeds that a cell's gates count up from its own.
BACKWARD_SEED = 10_000


class NamedStates(keras.layers.Layer):
    """A layer over sequences, made of recurrences, whose states go in and out by name.

    `recurrents` holds each `Recurrent` by its place, with which the names of its states begin: the
    state "hidden" of the one at "layer_0" is "layer_0/hidden". At places that end in "backward" a copy
    of the cell reads backwards; `merge` says how the outputs of both directions come together.
    """

    def __init__(self, merge: str = "concat", recompute_every: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.autocast = False  # states keep their precision
        self.supports_masking = True
        if merge not in MERGES:
            raise ValueError(f"merge must be one of {', '.join(MERGES)}; got {merge!r}")
        self.merge = merge
        self.recompute_every = recompute_every
        self.recurrents: dict[str, Recurrent] = {}

    def add_recurrents(self, places: Sequence[str], cell: Cell) -> None:
        options = {"return_sequences": True, "return_state": True, "dtype": self.dtype_policy}
        for place in places:
            name, backwards = place.replace("/", "_"), place.endswith("backward")
            own_cell = _backward_copy(cell) if backwards else cell
            self.recurrents[place] = Recurrent(
                own_cell, self.recompute_every, go_backwards=backwards, name=name, **options
            )

    @property
    def state_size(self) -> dict[str, int]:
        """The size of each state, by name."""
        sizes: dict[str, int] = {}
        for place, recurrent in self.recurrents.items():
            sizes |= dict(zip(state_names(place, recurrent.cell), recurrent.cell.state_size, strict=True))
        return sizes

    def get_initial_state(self, batch_size=None) -> States:
        states: States = {}
        for place, recurrent in self.recurrents.items():
            initial = recurrent.cell.get_initial_state(batch_size)
            states |= dict(zip(state_names(place, recurrent.cell), initial, strict=True))
        return states

    def checked(self, states: States) -> States:
        """The states. Raises ValueError if one is missing, unknown, or of another size."""
        if not isinstance(states, dict):
            raise ValueError(f"{self.name}: expected a dict of states by name, got a {type(states).__name__}")
        sizes = self.state_size
        for problem, names in (("missing", sizes.keys() - states), ("unknown", states.keys() - sizes)):
            if names:
                raise ValueError(
                    f"{self.name}: {problem} states {', '.join(sorted(names))}; it has {', '.join(sizes)}"
                )
        for name, size in sizes.items():
            shape = states[name].shape
            if len(shape) != 2 or shape[-1] != size:
                raise ValueError(
                    f"{self.name}: expected the state {name} as [batch, {size}], got {list(shape)}"
                )
        return states

    def run(self, places: Sequence[str], inputs, states: States, mask, training) -> tuple[tf.Tensor, States]:
        """The outputs, merged, and the final states of the recurrences at some places."""
        all_outputs = []
        final_states: States = {}
        for place in places:
            recurrent = self.recurrents[place]
            names = state_names(place, recurrent.cell)
            outputs, *new_states = recurrent(
                inputs, initial_state=[states[name] for name in names], mask=mask, training=training
            )
            all_outputs.append(tf.reverse(outputs, [1]) if recurrent.go_backwards else outputs)
            final_states |= dict(zip(names, new_states, strict=True))
        return self._merged(all_outputs), final_states

    def _merged(self, outputs: Sequence[tf.Tensor]) -> tf.Tensor:
        if len(outputs) == 1:
            return outputs[0]
        if self.merge == "concat":
            return tf.concat(outputs, axis=-1)
        return tf.add_n(outputs) / (len(outputs) if self.merge == "mean" else 1)

    def get_config(self):
        return {**super().get_config(), "merge": self.merge, "recompute_every": self.recompute_every}

    def merged_size(self, places: Sequence[str]) -> int:
        """The size of the outputs of `run`."""
        sizes = [self.recurrents[place].cell.output_size for place in places]
        return sum(sizes) if self.merge == "concat" else sizes[0]


def state_names(place: str, cell: Cell) -> list[str]:
    return [f"{place}/{state}" for state in cell.STATES]


def _backward_copy(cell: Cell) -> Cell:
    """A cell of the same configuration with weights of its own, and seeds of its own where it has any."""

    def reseeded(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: reseeded(part, name) for name, part in value.items()}
        return value + BACKWARD_SEED if key == "seed" and isinstance(value, int) else value

    return type(cell).from_config(reseeded(cell.get_config()))
