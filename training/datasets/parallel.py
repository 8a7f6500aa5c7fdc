"""Pairs of texts in two files, a line each: a translation corpus."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from serving.program import UserError
from training.datasets import files
from training.datasets.examples import Example, FileFormat, Made, lines
from training.datasets.files import Source

FIELDS = ("text", "translation")


class Parallel(FileFormat):
    """`SOURCE,TARGET`: two files whose n-th lines belong together. Pairs of two empty lines are left out."""

    def reader(self, path: str, config: Any) -> Made:
        names = path.split(",")
        if len(names) != 2:
            raise UserError(f"{path}: expected two files, SOURCE,TARGET, with a comma between them")
        source, target = (_file(name) for name in names)
        return Made(path, FIELDS, lambda: _pairs(source, target))


def _file(name: str) -> Source:
    found = files.find(name)
    if len(found) != 1:
        raise UserError(f"{name}: expected one file, found {len(found)}")
    return found[0]


def _pairs(source: Source, target: Source) -> Iterator[Example]:
    for left, right in itertools.zip_longest(lines(source), lines(target)):
        if left is None or right is None:
            more, fewer = (source, target) if right is None else (target, source)
            line = (left or right)[0]
            raise UserError(
                f"{more.name} has more lines than {fewer.name}, which ends before line {line}: "
                "the n-th lines of both have to belong together"
            )
        pair = (left[1].strip(), right[1].strip())
        if not any(pair):
            continue
        if not all(pair):
            empty = target if pair[0] else source
            raise UserError(f"{empty.name}, line {left[0]}: empty, but not so in the other file")
        yield pair
