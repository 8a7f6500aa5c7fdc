"""Separate examples, with their splits given or drawn at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

import numpy as np
import tensorflow as tf

from serving.program import UserError
from training.datasets.base import SPLITS
from training.datasets.splitting import Fractions

Given = TypeVar("Given")
Columns = dict[str, np.ndarray]  # strings by field, one of each an example


class Reader(Protocol):
    """Examples that can be read again and again, in the same order."""

    name: str
    fields: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many there are. Raises UserError if they cannot be read."""
        ...

    def blocks(self) -> Iterator[Columns]:
        """The examples, some at a time."""
        ...


class Examples:
    """A data set of separate examples."""

    stream = False

    def __init__(self, readers: Mapping[str, Reader], fractions: Fractions | None = None) -> None:
        """With `fractions` the splits are drawn from the same reader; without, each has its own."""
        self._readers = readers
        self._fractions = fractions

    def load(self, split: str) -> tf.data.Dataset:
        reader = of_split(self._readers, split)
        if reader.count == 0:
            raise UserError(f"{reader.name} holds no examples")
        signature = {field: tf.TensorSpec([None], tf.string) for field in reader.fields}
        blocks = tf.data.Dataset.from_generator(
            lambda: self._chosen(reader, split), output_signature=signature
        )
        if self._fractions and next(self._chosen(reader, split), None) is None:
            raise self._fractions.no_data(split, reader.name)
        return blocks.unbatch()

    def _chosen(self, reader: Reader, split: str) -> Iterator[Columns]:
        """The split's examples, in blocks."""
        first = 0
        for block in reader.blocks():
            size = len(block[reader.fields[0]])
            chosen = np.ones(size, bool)
            if self._fractions:
                chosen = self._fractions.draw(first, size, reader.count) == SPLITS.index(split)
            first += size
            if chosen.any():
                yield {field: values[chosen] for field, values in block.items()}


def of_split(given: Mapping[str, Given], split: str) -> Given:
    """What was given for a split. Raises UserError if nothing was."""
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; expected one of: {', '.join(SPLITS)}")
    if split not in given:
        raise UserError(f"the {split} split has no data: give --{split}_path")
    return given[split]
