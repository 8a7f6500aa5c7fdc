"""Reading text files of any size in blocks of whole characters."""

from __future__ import annotations

import glob
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from serving.program import UserError

BLOCK_BYTES = 1 << 18
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Source:
    """Bytes with a name, that can be opened again and again."""

    name: str
    open: Callable[[], BinaryIO | gzip.GzipFile]

    @classmethod
    def of_file(cls, path: str) -> Source:
        if path.endswith(".gz"):
            return cls(path, lambda: gzip.open(path, "rb"))
        return cls(path, lambda: open(path, "rb"))

    @classmethod
    def of_text(cls, name: str, text: str) -> Source:
        content = text.encode()
        return cls(name, lambda: io.BytesIO(content))


@dataclass(frozen=True)
class Segment:
    """The bytes [start, end) of a source; both fall between characters."""

    source: Source
    start: int
    end: int

    def blocks(self) -> Iterator[bytes]:
        """The segment in order, in blocks that end after a line, else before a space, else anywhere
        between two characters."""
        with self.source.open() as file:
            file.seek(self.start)
            left, rest = self.end - self.start, b""
            while left > 0 and (chunk := file.read(min(BLOCK_BYTES, left))):
                left -= len(chunk)
                block = rest + chunk
                cut = _cut(block) if left > 0 else len(block)
                rest = block[cut:]
                if cut:
                    yield block[:cut]
            if rest:
                yield rest

    @property
    def length(self) -> int:
        return self.end - self.start

    def part(self, start: int, end: int) -> Segment:
        """From `start` to `end`, counted from the segment's start; each moves on to the next character's
        first byte if it is not one."""
        return Segment(self.source, self._boundary(start), self._boundary(end))

    def _boundary(self, offset: int) -> int:
        place = self.start + offset
        if offset <= 0 or place >= self.end:
            return max(self.start, min(place, self.end))
        with self.source.open() as file:
            file.seek(place)
            following = file.read(3)  # a character has at most three bytes after its first
        while following and _continues(following[0]):
            place, following = place + 1, following[1:]
        return place


def _cut(block: bytes) -> int:
    after_line = block.rfind(b"\n") + 1
    if after_line:
        return after_line
    before_space = block.rfind(b" ")
    if before_space > 0:
        return before_space
    cut = len(block) - 1
    while cut > 0 and _continues(block[cut]):
        cut -= 1
    return cut


def _continues(byte: int) -> bool:
    """Whether a byte of UTF-8 is not the first of its character."""
    return byte & 0xC0 == 0x80


def find(path: str) -> list[Source]:
    """The files that a path names: itself, all in a folder and the folders in it, or a pattern's matches.

    They are sorted; in folders, names that begin with a dot are left out.

    Raises:
        UserError: there are none.
    """
    path = os.path.expanduser(path)
    if os.path.exists(path):
        found = _below(path)
        if not found:
            raise UserError(f"{path}: the folder holds no files")
    else:
        if not glob.has_magic(path):
            raise UserError(f"{path}: no such file or folder")
        found = sorted({file for match in glob.glob(path, recursive=True) for file in _below(match)})
        if not found:
            raise UserError(f"{path}: no file matches the pattern")
    for file in found:
        if not os.path.isfile(file):
            raise UserError(f"{file}: not a regular file, and data is read more than once; save it to a file")
    return [Source.of_file(file) for file in found]


def _below(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    inside = (file.relative_to(path) for file in Path(path).rglob("*") if file.is_file())
    visible = (file for file in inside if not any(part.startswith(".") for part in file.parts))
    return [os.path.join(path, file) for file in sorted(visible)]


def scan(source: Source) -> Segment:
    """All the text of a source, read once to see that it is text. A byte order mark is left out.

    Raises:
        UserError: it is not UTF-8, or not what its ending .gz says; with file, line and byte.
    """
    offset = start = 0
    line = 1
    rest = b""
    try:
        with source.open() as file:
            while chunk := file.read(BLOCK_BYTES):
                if offset == 0 and not rest and chunk.startswith(_BYTE_ORDER_MARK):
                    start = len(_BYTE_ORDER_MARK)
                block = rest + chunk
                valid = _check(block, source, line, offset)
                line += block.count(b"\n", 0, valid)
                offset += valid
                rest = block[valid:]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{source.name}: not a whole .gz file: {error}") from error
    if rest:
        raise _not_utf8(source, line, offset, rest[0])
    return Segment(source, start, offset)


def _check(block: bytes, source: Source, line: int, offset: int) -> int:
    """How many bytes at the start of the block are whole characters."""
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.end == len(block):
            return error.start  # the rest may come with the next block
        bad = error.start
        raise _not_utf8(source, line + block.count(b"\n", 0, bad), offset + bad, block[bad]) from error
    return len(block)


def _not_utf8(source: Source, line: int, offset: int, byte: int) -> UserError:
    return UserError(
        f"{source.name}, line {line}: not UTF-8 text: byte 0x{byte:02x} at offset {offset}; convert it, "
        "for example with: iconv -f latin1 -t utf-8"
    )
