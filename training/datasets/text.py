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
        corpus = _corpus(self._corpora, split)
        segments = corpus.segments
        if self._fractions:
            segments = _part(segments, split, self._fractions)
            if not segments:
                raise self._fractions.no_data(split, corpus.name)
        signature = tf.TensorSpec([], tf.string)
        blocks = tf.data.Dataset.from_generator(lambda: _blocks(segments), output_signature=signature)
        return blocks.map(_record)


class Lines:
    """Examples of a line each, without the end of the line; empty lines are left out."""

    stream = False

    def __init__(self, corpora: Mapping[str, Corpus], fractions: Fractions | None = None) -> None:
        """With `fractions` the splits are drawn from the same corpus; without, each has its own."""
        self._corpora = corpora
        self._fractions = fractions

    def load(self, split: str) -> tf.data.Dataset:
        corpus = _corpus(self._corpora, split)
        if corpus.line_count == 0:
            raise UserError(f"{corpus.name} holds nothing but empty lines")
        signature = tf.TensorSpec([None], tf.string)
        arrays = tf.data.Dataset.from_generator(
            lambda: self._chosen(corpus, split), output_signature=signature
        )
        if self._fractions and next(self._chosen(corpus, split), None) is None:
            raise self._fractions.no_data(split, corpus.name)
        return arrays.unbatch().map(_record)

    def _chosen(self, corpus: Corpus, split: str) -> Iterator[np.ndarray]:
        """The split's lines, in arrays."""
        first = 0
        for lines in _lines(corpus.segments):
            chosen = lines
            if self._fractions:
                labels = self._fractions.draw(first, len(lines), corpus.line_count)
                chosen = lines[labels == SPLITS.index(split)]
            first += len(lines)
            if len(chosen):
                yield chosen


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


def _corpus(corpora: Mapping[str, Corpus], split: str) -> Corpus:
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; expected one of: {', '.join(SPLITS)}")
    if split not in corpora:
        raise UserError(f"the {split} split has no data: give --{split}_path")
    return corpora[split]


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
