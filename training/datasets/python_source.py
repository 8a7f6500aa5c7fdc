"""Python's own standard library, each character tagged with what it is: a syntax highlighter's data.

The modules directly in the library's folder, some six million characters, which differ a little from one
version of Python to the next. Licence: PSF-2.0.
"""

from __future__ import annotations

import io
import keyword
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.datasets.base import SPLITS
from training.datasets.examples import Example, Examples, Made
from training.datasets.splitting import Fractions
from zoo.cutting import SEPARATOR

CHUNK = 80  # characters, from which on the end of a statement ends an example
LONGEST = 2000  # characters of an example; longer ones, which are tables of data, are left out

_KINDS = {
    tokenize.NUMBER: "number",
    tokenize.STRING: "string",
    tokenize.COMMENT: "comment",
    tokenize.OP: "operator",
}


def open_source(fractions: Fractions) -> Examples:
    """Some statements an example, cut between characters; whole files are drawn for each split."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = sorted(folder.glob("*.py"))
    splits = fractions.draw(0, len(paths), len(paths))
    readers = {
        split: _reader(split, [path for path, drawn in zip(paths, splits, strict=True) if drawn == index])
        for index, split in enumerate(SPLITS)
    }
    return Examples(readers)


def _reader(split: str, paths: Sequence[Path]) -> Made:
    def examples() -> Iterator[Example]:
        for path in paths:
            yield from _statements(path.read_text(encoding="utf-8"))

    return Made(f"the {split} split of python_source", ("tokens", "tags"), examples)


def _statements(source: str) -> Iterator[Example]:
    """Characters and tags of some statements at a time, joined."""
    tags, ends = highlighted(source)
    start = 0
    for end in ends:
        if end - start >= CHUNK or end == len(source):
            if 0 < end - start <= LONGEST:
                yield SEPARATOR.join(source[start:end]), SEPARATOR.join(tags[start:end])
            start = end


def highlighted(source: str) -> tuple[list[str], list[int]]:
    """What each character of a module is: keyword, name, number, string, comment, operator or space; and
    where statements, whole lines, end."""
    lines = source.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    tags = ["space" if character.isspace() else "operator" for character in source]
    ends = []
    in_string = string_start = 0  # Python 3.12 has the parts of an f-string as tokens, with strings within
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        start, end = (
            min(offsets[line - 1] + column, len(source)) for line, column in (token.start, token.end)
        )
        name = tokenize.tok_name[token.type]
        if name.endswith("STRING_START"):
            string_start = string_start if in_string else start
            in_string += 1
        elif name.endswith("STRING_END"):
            in_string -= 1
            if not in_string:
                tags[string_start:end] = ["string"] * (end - string_start)
        elif token.type == tokenize.NAME:
            tags[start:end] = ["keyword" if keyword.iskeyword(token.string) else "name"] * (end - start)
        elif token.type in _KINDS:
            tags[start:end] = [_KINDS[token.type]] * (end - start)
        elif token.type == tokenize.NEWLINE:
            ends.append(end)
    return tags, [*ends, len(source)]
