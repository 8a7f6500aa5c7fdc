"""Separate examples, with their splits given or drawn at random, and what reads them from files."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from serving.program import UserError
from training.datasets import files
from training.datasets.base import SPLITS
from training.datasets.files import Source
from training.datasets.splitting import Fractions

Given = TypeVar("Given")
Columns = dict[str, np.ndarray]  # strings by field, one of each an example
Example = tuple[str, ...]

BLOCK_EXAMPLES = 1024


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


class Made:
    """Examples from a function that makes them, the same ones each time: of `fields`, a string each."""

    def __init__(self, name: str, fields: tuple[str, ...], examples: Callable[[], Iterator[Example]]) -> None:
        self.name = name
        self.fields = fields
        self._examples = examples

    @cached_property
    def count(self) -> int:
        return sum(1 for _ in self._examples())

    def blocks(self) -> Iterator[Columns]:
        examples = self._examples()
        while block := list(itertools.islice(examples, BLOCK_EXAMPLES)):
            columns = zip(*block, strict=True)
            yield {
                field: np.array([value.encode() for value in values], object)
                for field, values in zip(self.fields, columns, strict=True)
            }


class FileFormat:
    """A format of the user's files, for FORMATS: what the examples of a path are."""

    def reader(self, path: str, config: Any) -> Reader:
        """The examples of what `--dataset=FORMAT:PATH`, or `--train_path=PATH`, names.

        Raises UserError when they are read and something is wrong with them, all of them before the first
        is used.
        """
        raise NotImplementedError

    def open_path(self, path: str, fractions: Fractions, config: Any) -> Examples:
        """`--dataset=FORMAT:PATH`: the files at PATH, split by `fractions`."""
        return Examples(dict.fromkeys(SPLITS, self.reader(path, config)), fractions)

    def open_splits(self, paths: Mapping[str, str], config: Any) -> Examples:
        """`--dataset=FORMAT` with `--train_path` and so on."""
        return Examples({split: self.reader(path, config) for split, path in paths.items()})


def of_files(path: str, fields: tuple[str, ...], read: Callable[[Source], Iterator[Example]]) -> Made:
    """The examples that `read` finds in the files at a path, one file after the other."""
    sources = files.find(path)
    return Made(path, fields, lambda: itertools.chain.from_iterable(map(read, sources)))


def lines(source: Source) -> Iterator[tuple[int, str]]:
    """(number from 1 on, text without its end) of each line. Raises UserError where it is not UTF-8."""
    with open_text(source) as text:
        for number, line in enumerate(text, 1):
            yield number, line.rstrip("\r\n")


def open_text(source: Source, newline: str = "\n") -> io.TextIOWrapper:
    """A source to be read as text. Raises UserError, with line and byte, where it is not UTF-8."""
    files.scan(source)
    return io.TextIOWrapper(source.open(), encoding="utf-8-sig", newline=newline)


def of_split(given: Mapping[str, Given], split: str) -> Given:
    """What was given for a split. Raises UserError if nothing was."""
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; expected one of: {', '.join(SPLITS)}")
    if split not in given:
        raise UserError(f"the {split} split has no data: give --{split}_path")
    return given[split]
