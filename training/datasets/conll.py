"""Column files, a token a line and sentences between empty lines: CoNLL's and Universal Dependencies'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from serving.program import UserError
from training.datasets.examples import Example, FileFormat, Made, lines, of_files
from training.datasets.files import Source
from zoo import spans
from zoo.cutting import SEPARATOR

FIELDS = ("tokens", "tags")
CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

Row = tuple[int, str, str]  # line, token, tag


class Conll(FileFormat):
    """Columns between tabs or spaces: tokens in --token_column, the first; tags in --tag_column, the last.

    Tags of spans have to be legal BIO or BIOES.
    """

    def reader(self, path: str, config: Any) -> Made:
        columns = (
            _number("token_column", config.token_column, 1),
            _number("tag_column", config.tag_column, 0),
        )
        return of_files(path, FIELDS, lambda source: _examples(source, self._sentences(source, *columns)))

    def _sentences(self, source: Source, token_column: int, tag_column: int) -> Iterator[list[Row]]:
        sentence: list[Row] = []
        width = 0
        for number, line in lines(source):
            columns = line.split("\t") if "\t" in line else line.split()
            if not line.strip() or columns[0] == "-DOCSTART-":
                if sentence:
                    yield sentence
                sentence = []
                continue
            width = width or len(columns)
            if len(columns) != width:
                raise UserError(
                    f"{source.name}, line {number}: columns: {len(columns)}; in the first line: {width}"
                )
            if max(token_column, tag_column) > width or width < 2:
                raise UserError(f"{source.name}, line {number}: there are only {width} columns: {line!r}")
            sentence.append((number, columns[token_column - 1], columns[tag_column - 1]))
        if sentence:
            yield sentence


class Conllu(FileFormat):
    """CoNLL-U; tags in `--tag_column`, a column's name or number: by default `upos`, the parts of speech.

    Tokens are its words; of multiword tokens the words, and no empty nodes.
    """

    def reader(self, path: str, config: Any) -> Made:
        name = config.tag_column or "upos"
        if name in CONLLU_COLUMNS:
            column = CONLLU_COLUMNS.index(name)
        elif name.isdecimal() and 1 <= int(name) <= len(CONLLU_COLUMNS):
            column = int(name) - 1
        else:
            raise UserError(f"--tag_column={name}: CoNLL-U has {', '.join(CONLLU_COLUMNS)}")
        return of_files(path, FIELDS, lambda source: _examples(source, self._sentences(source, column)))

    def _sentences(self, source: Source, tag_column: int) -> Iterator[list[Row]]:
        sentence: list[Row] = []
        for number, line in lines(source):
            if not line.strip():
                if sentence:
                    yield sentence
                sentence = []
            elif not line.startswith("#"):
                columns = line.split("\t")
                if len(columns) != len(CONLLU_COLUMNS):
                    raise UserError(
                        f"{source.name}, line {number}: columns: {len(columns)}; CoNLL-U has "
                        f"{len(CONLLU_COLUMNS)}, between tabs"
                    )
                if columns[0].isdecimal():
                    sentence.append((number, columns[1], columns[tag_column]))
        if sentence:
            yield sentence


def _number(flag: str, value: str, default: int) -> int:
    """A column's number, from 1 on; 0 for the last."""
    if not value:
        return default
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"--{flag}={value}: columns of this format have numbers, from 1 on")
    return int(value)


def _examples(source: Source, sentences: Iterator[list[Row]]) -> Iterator[Example]:
    checked = _Spans(source)
    for sentence in sentences:
        for line, token, tag in sentence:
            if not token or not tag or SEPARATOR in token + tag:
                raise UserError(
                    f"{source.name}, line {line}: a token and its tag are needed: {token!r}, {tag!r}"
                )
        checked.add(sentence)
        yield tuple(SEPARATOR.join(column) for column in list(zip(*sentence, strict=True))[1:])
    checked.finish()


@dataclass
class _Spans:
    """Finds tags of spans that are not legal, as soon as it is known that tags are those of spans.

    That they are BIOES shows at the first S or E, and what is not legal in BIO is in neither.
    """

    source: Source
    tags: frozenset[str] = frozenset()
    fault: UserError | None = None
    unended: UserError | None = None

    def add(self, sentence: Sequence[Row]) -> None:
        self.tags |= {tag for _, _, tag in sentence}
        before = spans.OUTSIDE
        for line, _, tag in [*sentence, (sentence[-1][0], "", spans.OUTSIDE)]:
            if not spans.may_follow(before, tag, ends=False):
                self.fault = self.fault or self._illegal(line, before, tag)
            elif not spans.may_follow(before, tag, ends=True):
                self.unended = self.unended or self._illegal(line, before, tag)
            before = tag

    def finish(self) -> None:
        if spans.mark_spans(self.tags):
            fault = self.fault or (self.unended if spans.have_ends(self.tags) else None)
            if fault:
                raise fault

    def _illegal(self, line: int, before: str, tag: str) -> UserError:
        return UserError(
            f"{self.source.name}, line {line}: {tag} follows {before}: neither BIO nor BIOES, in which each "
            "entity begins with a B or an S"
        )
