"""Tables with an example a row: tab-separated or comma-separated values, and JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from serving.program import UserError
from training.datasets import reading
from training.datasets.examples import Example, FileFormat, Made, lines, of_files, open_text
from training.datasets.files import Source
from zoo.models import TASKS

FIELD_CHARACTERS = 1 << 24  # a field's at most


def _columns(config: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields that the task needs, and the columns that the user says hold them."""
    fields = reading.COLUMNS if config.task == "reading" else TASKS[config.task].FIELDS
    try:
        return fields, tuple(getattr(config, f"{field}_column") for field in fields)
    except AttributeError:
        raise UserError(
            f"--dataset={config.dataset}: no table has the {' and '.join(fields)} of --task={config.task}"
        ) from None


def _made(fields: tuple[str, ...]) -> tuple[str, ...]:
    """The fields of the examples that are made of those of a row."""
    return reading.FIELDS if fields == reading.COLUMNS else fields


def _example(values: Sequence[str], fields: Sequence[str], place: str) -> Example:
    example = tuple(value.strip() for value in values)
    for field, value in zip(fields, example, strict=True):
        if not value:
            raise UserError(f"{place}: the {field} is empty")
    if fields != reading.COLUMNS:
        return example
    context, question, answer = example
    return reading.located(context, question, answer, place)


@dataclass(frozen=True)
class Table(FileFormat):
    """A format of tables.

    Columns are named by `--text_column` and so on: as in the first row, or, where all are numbers, by their
    place from 1 on in a table without such a row. Rows without anything are left out.
    """

    delimiter: str
    quoted: bool

    def reader(self, path: str, config: Any) -> Made:
        fields, columns = _columns(config)
        return of_files(path, _made(fields), lambda source: self._examples(source, fields, columns))

    def _rows(self, source: Source) -> Iterator[tuple[int, list[str]]]:
        """(line number of its end, fields) of each row. Raises UserError where it is no such table."""
        csv.field_size_limit(FIELD_CHARACTERS)
        with open_text(source, newline="") as text:
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

    def _examples(self, source: Source, fields: Sequence[str], columns: Sequence[str]) -> Iterator[Example]:
        rows = self._rows(source)
        if all(column.isdecimal() for column in columns):
            places, width = [int(column) - 1 for column in columns], 0
        else:
            header = next(rows, (1, []))[1]
            places = [
                _place(field, column, header, source) for field, column in zip(fields, columns, strict=True)
            ]
            width = len(header)
        for line, row in rows:
            width = width or len(row)
            if len(row) != width:
                raise UserError(f"{source.name}, line {line}: columns: {len(row)}; in the first row: {width}")
            if not all(0 <= place < width for place in places):
                raise UserError(f"{source.name}, line {line}: there is no column {max(places) + 1}: {row}")
            yield _example([row[place] for place in places], fields, f"{source.name}, line {line}")


def _place(field: str, column: str, header: list[str], source: Source) -> int:
    if column in header:
        return header.index(column)
    raise UserError(
        f"{source.name}, line 1: no column {column!r} among {', '.join(map(repr, header))}; say which holds "
        f"the {field} with --{field}_column, by numbers (1, 2 ...) where the first row holds no names"
    )


class JsonLines(FileFormat):
    """A JSON object a line; `--text_column` and so on name the members: strings, numbers, truth values."""

    def reader(self, path: str, config: Any) -> Made:
        fields, columns = _columns(config)
        return of_files(path, _made(fields), lambda source: self._examples(source, fields, columns))

    def _examples(self, source: Source, fields: Sequence[str], columns: Sequence[str]) -> Iterator[Example]:
        for number, line in lines(source):
            if not line.strip():
                continue
            place = f"{source.name}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{place}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f'{place}: expected an object, as in {{"text": ...}}; got {line[:60]}')
            values = []
            for field, column in zip(fields, columns, strict=True):
                if column not in row:
                    raise UserError(
                        f"{place}: no member {column!r} among {', '.join(map(repr, row))}; say which holds "
                        f"the {field} with --{field}_column"
                    )
                if not isinstance(row[column], str | int | float):
                    raise UserError(f"{place}: {column!r} is neither text nor a number: {line[:60]}")
                values.append(row[column] if isinstance(row[column], str) else json.dumps(row[column]))
            yield _example(values, fields, place)
