"""The Penn Treebank as language models have it, and what is laid out like it.

`--dataset=ptb:DIR`, with ptb.train.txt, ptb.valid.txt and ptb.test.txt in the folder: a sentence a line, with
spaces between its words, and <unk> for all words that are not in the vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from serving.program import UserError
from training.datasets import examples, files
from training.datasets.files import Source
from training.datasets.splitting import Fractions

FILES = {"train": "ptb.train.txt", "validation": "ptb.valid.txt", "test": "ptb.test.txt"}
LINES = 1000  # a record
_END = b"<eos>"  # what the end of a line counts as; in some copies it is written


class PennTreebank:
    """The format `ptb`, for FORMATS."""

    def open_path(self, path: str, fractions: Fractions, config: Any) -> Sentences:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise UserError(f"--dataset=ptb:{path}: no such folder; it has {', '.join(FILES.values())}")
        return Sentences(folder)

    def open_splits(self, paths: Mapping[str, str], config: Any) -> Sentences:
        raise UserError(
            f"--dataset=ptb takes a folder, as in --dataset=ptb:DIR, with {', '.join(FILES.values())} in it; "
            "files of other names are --dataset=text"
        )


class Sentences:
    """A continuous text of lines, each with a space before every word and before its end.

    The whitespace tokenizer's tokens are then the words, and one more a line: its end.
    """

    stream = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, split: str) -> tf.data.Dataset:
        if split not in FILES:
            raise UserError(f"unknown split {split!r}; expected one of: {', '.join(FILES)}")
        (source,) = files.find(str(self._folder / FILES[split]))
        if not files.scan(source).length:
            raise UserError(f"{source.name} is empty")
        signature = tf.TensorSpec([], tf.string)
        blocks = tf.data.Dataset.from_generator(lambda: _blocks(source), output_signature=signature)
        return blocks.map(lambda text: {"text": text})


def _blocks(source: Source) -> Iterator[bytes]:
    lines = (_spaced(line.encode()) for _, line in examples.lines(source))
    while block := b"".join(itertools.islice(lines, LINES)):
        yield block


def _spaced(line: bytes) -> bytes:
    words = line.split()
    if words[-1:] == [_END]:
        words.pop()
    return b"".join(b" " + word for word in words) + b" \n"
