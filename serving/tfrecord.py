"""TFRecord files: a sequence of byte strings, each guarded by checksums.

A record is its length (uint64), the length's checksum (uint32), the bytes, and their checksum; all little
endian. A checksum is a CRC-32C, masked so that checksums of data that hold checksums stay strong.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, lowest bit first
_MASK_DELTA = 0xA282EAD8


class CorruptedError(Exception):
    """The file is no sequence of whole records from some byte on."""


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """The CRC-32C of Castagnoli et al. 1993, as RFC 3720 has it."""
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def read_records(path: str | os.PathLike) -> Iterator[bytes]:
    """The records of a file.

    Raises:
        CorruptedError: a checksum is wrong, or the file ends within a record.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        offset = 0
        while header := file.read(12):
            length = _checked(header, 8, offset)
            # A length may be any number: the file is asked how much there is, before memory is.
            size = int.from_bytes(length, "little")
            if size > os.fstat(file.fileno()).st_size - file.tell():
                raise CorruptedError(f"truncated record at {offset}")
            yield _checked(file.read(size + 4), size, offset)
            offset = file.tell()


def _checked(block: bytes, size: int, offset: int) -> bytes:
    if len(block) < size + 4:
        raise CorruptedError(f"truncated record at {offset}")
    data, checksum = block[:size], block[size:]
    if struct.pack("<I", masked_crc32c(data)) != checksum:
        raise CorruptedError(f"corrupted record at {offset}")
    return data


def write_records(file: BinaryIO, records: Iterable[bytes]) -> None:
    for record in records:
        length = struct.pack("<Q", len(record))
        file.write(length + struct.pack("<I", masked_crc32c(length)))
        file.write(record + struct.pack("<I", masked_crc32c(record)))
