"""Everything that a training run needs to go on where it was: one file, written in one move."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.model_directory import ModelDirectoryError, assign, read_tensors, tensors_of, write_tensors
from zoo.models import TaskModel

KEPT = 2


@dataclass
class Progress:
    """Where a run stands. `history` has one dict an evaluation: its step and metrics."""

    step: int = 0
    skipped: int = 0
    bad_in_a_row: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    data: str = ""  # the fingerprint of the training data


class Checkpoints:
    """Writes and reads the checkpoints of one run."""

    def __init__(
        self,
        folder: Path,
        model: TaskModel,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        average: Sequence[tf.Variable] = (),
    ):
        self.folder = folder
        self.model = model
        self.optimizer = optimizer
        self.strategy = strategy
        self.average = average

    def save(self, progress: Progress, states: Any) -> None:
        """Write a checkpoint; the oldest ones go. All workers take part, and the chief writes."""
        states = {name: self.strategy.gather(state, axis=0).numpy() for name, state in states.items()}
        if not self.strategy.extended.should_checkpoint:
            return
        tensors = tensors_of(self.model.weights)
        tensors |= {name: variable.numpy() for name, variable in self._further_variables()}
        tensors |= {f"state/{name}": state for name, state in states.items()}
        path = self.folder / f"step-{progress.step:09d}.safetensors"
        write_tensors(path, tensors, dataclasses.asdict(progress))
        for old in [*self._files()[:-KEPT], *self.folder.glob(".*.partial")]:  # partial: a killed run's
            old.unlink()

    def restore(self, states: Any) -> tuple[Progress, Any] | None:
        """The newest checkpoint, put into model and optimizer; None where there is none."""
        files = self._files()
        if not files:
            return None
        try:
            tensors, metadata = read_tensors(files[-1])
        except ModelDirectoryError as error:
            raise ModelDirectoryError(f"{error}; delete it to go on from the checkpoint before") from error
        assign(self.model.weights, tensors, files[-1])
        try:
            for name, variable in self._further_variables():
                variable.assign(tensors[name])
            states = {name: self._on_replicas(tensors[f"state/{name}"]) for name in states}
        except KeyError as error:
            raise ModelDirectoryError(f"{files[-1]} has no {error}: it is of another run") from None
        return Progress(**metadata), states

    def _on_replicas(self, rows: np.ndarray) -> Any:
        replicas = self.strategy.num_replicas_in_sync
        if replicas == 1:
            return tf.constant(rows)
        parts = np.split(rows, replicas)
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    def _further_variables(self) -> Iterator[tuple[str, Any]]:
        """Those beside the model's weights, by name."""
        groups = {
            "optimizer": self.optimizer.variables,
            "random": self._random_states(),
            "average": self.average,
        }
        for group, variables in groups.items():
            yield from ((f"{group}/{index}", variable) for index, variable in enumerate(variables))

    def _random_states(self) -> list[keras.Variable]:
        """The states of dropout's random generators, which Keras does not count among the weights."""
        weights = {id(variable) for variable in self.model.weights}
        return [variable for variable in self.model.variables if id(variable) not in weights]

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))
