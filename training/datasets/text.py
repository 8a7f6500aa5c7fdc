"""Plain text: one continuous stream, or a line an example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from serving.program import UserError
from training.datasets import files
from training.datasets.base import SPLITS, Dataset
from training.datasets.examples import Columns, Examples, of_split
from training.datasets.files import Segment, Source
from training.datasets.splitting import Fractions

MODES = ("stream", "lines")


class Corpus:
    """One or more sources of text, one after the other.

    They are looked through once, when first needed, so that bad text is reported before training starts
    and not in the middle of it.
    """

    def __init__(self, name: str, sources: list[Source]) -> None:
        self.name = name
        self._sources = sources

    @cached_property
    def segments(self) -> list[Segment]:
        """All the text there is. Raises UserError if it is not text, or empty."""
        segments = [segment for source in self._sources if (segment := files.scan(source)).length]
        if not segments:
            raise UserError(f"{self.name} is empty")
        return segments

    @cached_property
    def line_count(self) -> int:
        """How many lines are not empty."""
        return sum(len(lines) for lines in _lines(self.segments))


class Stream:
    """A continuous text. Its parts follow each other: training, validation, test."""

    stream = True

    def __init__(self, corpora: Mapping[str, Corpus], fractions: Fractions | None = None) -> None:
        """With `fractions` all splits are parts of the same corpus; without, each has its own."""
        self._corpora = corpora
        self._fractions = fractions

    def load(self, split: str) -> tf.data.Dataset:
        corpus = of_split(self._corpora, split)
        segments = corpus.segments
        if self._fractions:
            segments = _part(segments, split, self._fractions)
            if not segments:
                raise self._fractions.no_data(split, corpus.name)
        signature = tf.TensorSpec([], tf.string)
        blocks = tf.data.Dataset.from_generator(lambda: _blocks(segments), output_signature=signature)
        return blocks.map(_record)


class Lines(Examples):
    """Examples of a line each, without the end of the line; empty lines are left out."""

    def __init__(self, corpora: Mapping[str, Corpus], fractions: Fractions | None = None) -> None:
        """With `fractions` the splits are drawn from the same corpus; without, each has its own."""
        super().__init__({split: _LineReader(corpus) for split, corpus in corpora.items()}, fractions)


class _LineReader:
    """The lines of a corpus, as examples."""

    fields: tuple[str, ...] = ("text",)

    def __init__(self, corpus: Corpus) -> None:
        self.name = corpus.name
        self._corpus = corpus

    @property
    def count(self) -> int:
        if not self._corpus.line_count:
            raise UserError(f"{self.name} holds nothing but empty lines")
        return self._corpus.line_count

    def blocks(self) -> Iterator[Columns]:
        return ({"text": lines} for lines in _lines(self._corpus.segments))


def _record(text: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"text": text}


def open_path(path: str, fractions: Fractions, config: Any) -> Dataset:
    """`--dataset=text:PATH`: the files at PATH, split by `fractions`."""
    corpus = Corpus(path, files.find(path))
    return _mode(config.text_mode)(dict.fromkeys(SPLITS, corpus), fractions)


def open_splits(paths: Mapping[str, str], config: Any) -> Dataset:
    """`--dataset=text` with `--train_path` and so on."""
    return _mode(config.text_mode)({split: Corpus(path, files.find(path)) for split, path in paths.items()})


def in_memory(name: str, text: str) -> dict[str, Corpus]:
    """All splits from one text, for `Stream` and `Lines`."""
    return dict.fromkeys(SPLITS, Corpus(name, [Source.of_text(name, text)]))


def _mode(name: str) -> type[Stream] | type[Lines]:
    if name not in MODES:
        raise UserError(f"--text_mode={name}: expected one of: {', '.join(MODES)}")
    return Stream if name == "stream" else Lines


def _part(segments: list[Segment], split: str, fractions: Fractions) -> list[Segment]:
    """What of the segments, one after the other, belongs to the split."""
    start, end = fractions.part(split, sum(segment.length for segment in segments))
    parts = []
    for segment in segments:
        part = segment.part(max(start, 0), max(end, 0))
        if part.length:
            parts.append(part)
        start, end = start - segment.length, end - segment.length
    return parts


def _blocks(segments: list[Segment]) -> Iterator[bytes]:
    for segment in segments:
        yield from segment.blocks()


def _lines(segments: list[Segment]) -> Iterator[np.ndarray]:
    """The lines of the segments, in arrays of those that end in the same block."""
    for segment in segments:
        unfinished: list[bytes] = []  # a line may be longer than a block
        for block in segment.blocks():
            unfinished.append(block)
            if block.endswith(b"\n"):
                yield from _array(unfinished)
                unfinished = []
        yield from _array(unfinished)


def _array(blocks: list[bytes]) -> Iterator[np.ndarray]:
    text = b"".join(blocks).replace(b"\r\n", b"\n")
    if lines := list(filter(None, text.split(b"\n"))):
        yield np.array(lines, object)
