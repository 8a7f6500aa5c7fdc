"""ARPA files: back-off models as text, in base 10, as KenLM, SRILM and others read and write them.

    \\data\\
    ngram 1=4
    ngram 2=3

    \\1-grams:
    -0.60   <unk>   0
    -99     <s>     -0.30
    ...
    \\end\\

Here <s>, which nothing but begins a sentence, and </s>, which ends it, are one word: its probability is that
of </s>, its back-off weight that of <s>, and first in an n-gram it is written as <s>.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np

from zoo.ngram.backoff import MAX_ORDER, NONE, Array, BackoffModel, find

UNKNOWN, BEGINNING, END = b"<unk>", b"<s>", b"</s>"
UNKNOWN_ID, BOUNDARY_ID = 0, 1
IMPOSSIBLE = -99.0  # what stands for the logarithm of 0
LINES = 1 << 14  # at a time


def write(file: BinaryIO, model: BackoffModel, words: Sequence[bytes], across: bool = False) -> None:
    """Write a model whose word 0 is the unknown one and word 1 the boundary between sentences.

    Args:
        words: what the others are written as, by id.
        across: n-grams reach across sentences: the boundary is </s> throughout, and <s> is of no use.

    Raises:
        ValueError: a word cannot be written: it is empty, has white space in it, or is another word, too.
    """
    names = np.array([UNKNOWN, END, *words[BOUNDARY_ID + 1 :]], object)
    _check_words(names)
    sizes = model.sizes
    file.write(b"\\data\\\n")
    for order, size in enumerate([sizes[0] + 1, *sizes[1:]], 1):
        file.write(b"ngram %d=%d\n" % (order, size))
    for level in range(model.order):
        file.write(b"\n\\%d-grams:\n" % (level + 1))
        if level == 0:
            backoff = 0.0 if across or model.order == 1 else model.backoff[0][BOUNDARY_ID]
            file.write(b"%d\t%b\t%.9g\n" % (IMPOSSIBLE, BEGINNING, _base_10(backoff)))
        for start in range(0, sizes[level], LINES):
            file.write(_lines(model, level, slice(start, start + LINES), names, across))
    file.write(b"\n\\end\\\n")


def words_of(pieces: Sequence[bytes]) -> list[bytes]:
    """What a tokenizer's pieces are written as.

    Without the space before a word, if that leaves them different and without white space; else with
    Unicode's symbols for white space (U+2420 for a space) in its place.
    """
    words = [piece.removeprefix(b" ") for piece in pieces]
    ordinary = words[BOUNDARY_ID + 1 :]
    if len(set(ordinary)) == len(ordinary) and all(word.split() == [word] for word in ordinary):
        return words
    return [re.sub(rb"\s", lambda match: chr(0x2400 + ord(match[0])).encode(), piece) for piece in pieces]


def _check_words(words: Iterable[bytes]) -> None:
    seen = {BEGINNING}
    for word in words:
        if word in seen or [word] != word.split():
            reason = "stands for several words" if word in seen else "is empty or has white space in it"
            raise ValueError(f"{word.decode('utf-8', 'replace')!r} {reason}: no word of an ARPA file")
        seen.add(word)


def _lines(model: BackoffModel, level: int, part: slice, names: Array, across: bool) -> bytes:
    ids = model.words(level, part)
    columns = names[ids]
    if level and not across:
        columns[ids[:, 0] == BOUNDARY_ID, 0] = BEGINNING
    grams = map(b" ".join, columns.tolist())
    log_prob = _base_10(model.log_prob[level][part]).tolist()
    if level == model.order - 1:
        return b"".join(map(b"%.9g\t%b\n".__mod__, zip(log_prob, grams, strict=True)))
    backoff = model.backoff[level][part]
    if level == 0 and not across:
        backoff = np.where(ids[:, 0] == BOUNDARY_ID, 0.0, backoff)  # is that of <s>
    rows = zip(log_prob, grams, _base_10(backoff).tolist(), strict=True)
    return b"".join(map(b"%.9g\t%b\t%.9g\n".__mod__, rows))


def _base_10(values: Array | float) -> Array:
    return np.maximum(np.float64(values) / math.log(10), IMPOSSIBLE)


def read(file: BinaryIO) -> tuple[BackoffModel, list[bytes]]:
    """The model of an ARPA file, and its words by id: <unk>, </s>, and the others as they come.

    Raises:
        ValueError: it is no ARPA file, or cut off, or its parts contradict each other; says in which line.
    """
    lines = _Lines(file)
    sizes = _sizes(lines)
    words, log_prob, backoff = _unigrams(lines, sizes[0])
    ids = {word: index for index, word in enumerate(words)} | {BEGINNING: BOUNDARY_ID}
    levels = [(np.arange(len(words)), log_prob, backoff)]
    for order, size in enumerate(sizes[1:], 2):
        levels.append(_longer(lines, order, size, ids, [keys for keys, _, _ in levels]))
    lines.expect(b"\\end\\")
    while not len(levels[-1][0]):
        levels.pop()
    keys, log_probs, backoffs = map(list, zip(*levels, strict=True))
    return BackoffModel(len(words), keys, log_probs, backoffs[:-1]), words


class _Lines:
    """The lines of a file, whose number is known."""

    def __init__(self, file: BinaryIO):
        self._lines = iter(file)
        self.number = 0

    def next(self) -> bytes:
        line = next(self._lines, None)
        if line is None:
            raise ValueError(f"it ends with line {self.number}, before \\end\\: it is cut off")
        self.number += 1
        return line.strip()

    def expect(self, header: bytes) -> None:
        """Pass over empty lines and the header."""
        while not (line := self.next()):
            pass
        if line != header:
            raise self.error(
                f"expected {header.decode()} after as many n-grams as \\data\\ says, got {_shown(line)}"
            )

    def columns(self, order: int, size: int) -> Iterator[list[tuple[bytes, ...]]]:
        """Logarithms, words and back-off weights of the n-grams of an order, some lines at a time."""
        self.expect(b"\\%d-grams:" % order)
        for start in range(0, size, LINES):
            wanted = min(LINES, size - start)
            rows = [line.split() for line in itertools.islice(self._lines, wanted)]
            self.number += len(rows)
            for place, row in enumerate(rows):
                if len(row) == order + 1:
                    row.append(b"0")
                elif len(row) != order + 2:
                    message = f"expected one of {size} {order}-grams, got {_shown(b' '.join(row))}"
                    raise self.error(message, len(rows) - 1 - place)
            if len(rows) < wanted:
                self.next()
            yield list(zip(*rows, strict=True))

    def error(self, message: str, back: int = 0) -> ValueError:
        return ValueError(f"line {self.number - back}: {message}")

    def logarithms(self, fields: Sequence[bytes], largest: float = math.inf) -> Array:
        """A column of base 10, as natural logarithms."""
        try:
            values = np.array(list(map(float, fields)))
        except ValueError:
            values = np.array(list(map(_number, fields)))
        self.check(
            fields, (values <= largest) & (values < math.inf), " is no logarithm of a number that may be here"
        )
        return np.where(values <= IMPOSSIBLE, -math.inf, values * math.log(10)).astype(np.float32)

    def ids(self, fields: Sequence[bytes], words: Mapping[bytes, int]) -> Array:
        """A column of words, by id."""
        ids = np.array([words.get(word, NONE) for word in fields])
        self.check(fields, ids != NONE, " is not among the 1-grams")
        return ids

    def check(self, fields: Sequence[bytes], is_right: Array, reproach: str) -> None:
        """Raise ValueError for the first line whose field is not right."""
        if not is_right.all():
            place = int(np.argmin(is_right))
            raise self.error(f"{_shown(fields[place])}{reproach}", len(fields) - 1 - place)


def _sizes(lines: _Lines) -> list[int]:
    """How many n-grams of each order \\data\\ says there are."""
    while (line := lines.next()) != b"\\data\\":
        if line and not line.startswith(b"#"):
            raise lines.error(f"no ARPA file: expected \\data\\, got {_shown(line)}")
    sizes: list[int] = []
    while line := lines.next():
        match = re.fullmatch(rb"ngram +(\d+) *= *(\d+)", line)
        if not match or int(match[1]) != len(sizes) + 1:
            raise lines.error(f"expected ngram {len(sizes) + 1}=NUMBER, got {_shown(line)}")
        sizes.append(int(match[2]))
    if not 1 <= len(sizes) <= MAX_ORDER:
        raise lines.error(f"n-grams of {len(sizes)} orders; expected 1 to {MAX_ORDER}")
    return sizes


def _unigrams(lines: _Lines, size: int) -> tuple[list[bytes], Array, Array]:
    """Words, log probabilities and back-off weights, by id."""
    names: list[bytes] = []
    values = []
    for log_prob, words, backoff in lines.columns(1, size):
        names += words
        values.append([lines.logarithms(log_prob, 0.0), lines.logarithms(backoff)])
    place = {name: index for index, name in enumerate(names)}
    if len(place) < len(names):
        twice = next(name for index, name in enumerate(names) if place[name] != index)
        raise lines.error(f"{_shown(twice)} is there twice among the 1-grams above")
    place |= {name: len(names) for name in (UNKNOWN, BEGINNING, END) if name not in place}
    probs, weights = np.hstack([*values, [[-math.inf], [0.0]]]).astype(np.float32)
    if weights[place[BEGINNING]] and weights[place[END]]:
        raise lines.error("<s> and </s> are one word here, and cannot have a back-off weight each")
    weights[place[END]] += weights[place[BEGINNING]]
    vocabulary = [UNKNOWN, END, *(name for name in names if name not in (UNKNOWN, BEGINNING, END))]
    order = [place[name] for name in vocabulary]
    return vocabulary, probs[order], weights[order]


def _longer(
    lines: _Lines, order: int, size: int, ids: Mapping[bytes, int], shorter: Sequence[Array]
) -> tuple[Array, Array, Array]:
    """Keys, log probabilities and back-off weights of the n-grams of an order above 1."""
    vocabulary_size = len(shorter[0])
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))]
    for log_prob, first, *words, backoff in lines.columns(order, size):
        history = lines.ids(first, ids)
        for level, word in enumerate(words[:-1], 1):
            history = find(shorter[level], history, lines.ids(word, ids), vocabulary_size)
        if (history == NONE).any():
            histories = list(map(b" ".join, zip(first, *words[:-1], strict=True)))
            lines.check(histories, history != NONE, ", which it goes on from, is no n-gram above")
        for word in words:
            lines.check(word, np.array(word, object) != BEGINNING, " can only be the first word")
        key = history * vocabulary_size + lines.ids(words[-1], ids)
        parts.append((key, lines.logarithms(log_prob, 0.0), lines.logarithms(backoff)))
    keys, probs, weights = map(np.concatenate, zip(*parts, strict=True))
    by_key = np.argsort(keys)
    keys = keys[by_key]
    if (keys[1:] == keys[:-1]).any():
        raise lines.error(f"one of the {order}-grams above is there twice")
    return keys, probs[by_key], weights[by_key]


def _number(field: bytes) -> float:
    try:
        return float(field)
    except ValueError:
        return math.nan


def _shown(text: bytes) -> str:
    return repr(text[:60].decode("utf-8", "replace"))
