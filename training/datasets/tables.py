"""Tables of texts and labels: tab-separated or comma-separated values."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from serving.program import UserError
from training.datasets import files
from training.datasets.base import SPLITS
from training.datasets.examples import Columns, Examples
from training.datasets.files import Source
from training.datasets.splitting import Fractions

BLOCK_ROWS = 1024
FIELD_CHARACTERS = 1 << 24  # a field's at most


@dataclass(frozen=True)
class Table:
    """A format of tables, for FORMATS.

    Columns are named by `--text_column` and `--label_column`: as in the first row, or, where both are
    numbers, by their place from 1 on in a table without such a row. Rows without anything are left out.
    """

    delimiter: str
    quoted: bool

    def open_path(self, path: str, fractions: Fractions, config: Any) -> Examples:
        """`--dataset=tsv:PATH`: the files at PATH, split by `fractions`."""
        return Examples(dict.fromkeys(SPLITS, self._reader(path, config)), fractions)

    def open_splits(self, paths: Mapping[str, str], config: Any) -> Examples:
        """`--dataset=tsv` with `--train_path` and so on."""
        return Examples({split: self._reader(path, config) for split, path in paths.items()})

    def _reader(self, path: str, config: Any) -> Rows:
        return Rows(path, files.find(path), self, (config.text_column, config.label_column))

    def rows(self, source: Source) -> Iterator[tuple[int, list[str]]]:
        """(line number of its end, fields) of each row. Raises UserError where it is no such table."""
        csv.field_size_limit(FIELD_CHARACTERS)
        with source.open() as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            reader = csv.reader(
                text,
                delimiter=self.delimiter,
                strict=True,
                quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
            )
            try:
                for row in reader:
                    if row:
                        yield reader.line_num, row
            except csv.Error as error:
                raise UserError(f"{source.name}, line {reader.line_num}: {error}") from error


class Rows:
    """The examples of some tables, one after the other. All are looked through before the first is used."""

    fields: tuple[str, ...] = ("text", "label")

    def __init__(self, name: str, sources: Sequence[Source], table: Table, columns: Sequence[str]) -> None:
        self.name = name
        self._sources = sources
        self._table = table
        self._columns = columns

    @cached_property
    def count(self) -> int:
        for source in self._sources:
            files.scan(source)  # whether it is text
        return sum(1 for source in self._sources for _ in self._examples(source))

    def blocks(self) -> Iterator[Columns]:
        examples = itertools.chain.from_iterable(map(self._examples, self._sources))
        while block := list(itertools.islice(examples, BLOCK_ROWS)):
            columns = zip(*block, strict=True)
            yield {
                field: np.array([value.encode() for value in values], object)
                for field, values in zip(self.fields, columns, strict=True)
            }

    def _examples(self, source: Source) -> Iterator[tuple[str, ...]]:
        rows = self._table.rows(source)
        if all(column.isdecimal() for column in self._columns):
            places, width, header = [int(column) - 1 for column in self._columns], None, None
        else:
            header = next(rows, (1, []))[1]
            places, width = [self._place(column, header, source) for column in self._columns], len(header)
        for line, row in rows:
            width = width or len(row)
            if len(row) != width:
                raise UserError(f"{source.name}, line {line}: columns: {len(row)}; in the first row: {width}")
            if not all(0 <= place < width for place in places):
                raise UserError(f"{source.name}, line {line}: there is no column {max(places) + 1}: {row}")
            example = tuple(row[place].strip() for place in places)
            for field, value in zip(self.fields, example, strict=True):
                if not value:
                    raise UserError(f"{source.name}, line {line}: the {field} is empty")
            yield example

    def _place(self, column: str, header: list[str], source: Source) -> int:
        if column in header:
            return header.index(column)
        raise UserError(
            f"{source.name}, line 1: no column {column!r} among {', '.join(map(repr, header))}; give "
            "--text_column and --label_column, by numbers (1, 2 ...) where the first row holds no names"
        )
