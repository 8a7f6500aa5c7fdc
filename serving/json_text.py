"""JSON text as RapidJSON reads and prints it, because the stock server uses that (util/json_tensor.cc).

Reading differs where nobody should notice: numbers are rounded correctly (RapidJSON's are off by up to three
units in the last place), half a surrogate pair is always an error, `Inf` and `-NaN` are not numbers, and a
number too big for a double is an error only where it is used.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.rpc import StatusError, invalid

# A call into C that does not return holds up all threads. In documents larger than this, numbers are made by
# Python functions, between which others have their turn: that takes up to three times as long.
_YIELD_BYTES = 1 << 20
_NUMBERS_AT_ONCE = 4096  # printed in one call into C, a millisecond or two
_FEW = 32  # numbers, for which thirteen calls of NumPy do not pay
_LARGEST_SHOWN = 1024  # characters of a value in a message
_INDENT = " " * 4
_INT64 = range(-(2**63), 2**64)  # what RapidJSON keeps as integers; it makes doubles of others

_WHITESPACE = re.compile("[ \t\n\r]*")
_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_STRING_OR_NUMBER = re.compile(rf'"(?:[^"\\]|\\.)*"|({_NUMBER})', re.ASCII)
# A pair of surrogates, or half of one, or any other escape.
_ESCAPES = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)|\\.")
_SHORT_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_QUOTES = {code: f"\\u{code:04X}" for code in range(32)} | str.maketrans(_SHORT_ESCAPES)
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


class Constant(float):
    """NaN, Infinity or -Infinity, written as such; a `float` that is infinite was a number too big."""


class Document(NamedTuple):
    """What a text says: None, bool, int, float, Constant, str, list or dict."""

    value: Any
    text: str

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Where its values are used, an OverflowError means that a number does not fit into a double."""
        try:
            yield
        except OverflowError:
            raise _number_too_big(self.text) from None


def parse(body: bytes) -> Document:
    """The JSON value that a body begins with; what follows it is ignored.

    Bytes that are not UTF-8 stay what they are (as Python's surrogate escapes). Of members of an object that
    have the same name, the first counts.

    Raises:
        StatusError: INVALID_ARGUMENT with RapidJSON's words, and the byte where the fault is.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    text = body.decode("utf-8", "surrogateescape")
    start = _start(text)
    if start == len(text):
        raise _error("The document is empty.", text, start)
    decoder = _YIELDING_DECODER if len(body) > _YIELD_BYTES else _DECODER
    try:
        value, end = decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        _check_surrogates(text, error.pos)
        raise _error(*_explained(text, error.msg, error.pos)) from None
    except RecursionError:
        raise invalid("JSON Parse error: The document is nested too deeply.") from None
    except ValueError:  # an integer of more digits than Python converts
        raise _number_too_big(text) from None
    _check_surrogates(text, end)
    return Document(value, text)


def _start(text: str) -> int:
    return _after_space(text, 1 if text.startswith("\ufeff") else 0)


def _after_space(text: str, position: int) -> int:
    space = _WHITESPACE.match(text, position)
    return position if space is None else space.end()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        for name, value in reversed(pairs):
            members[name] = value
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=Constant)
_YIELDING_DECODER = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_constant=Constant,
    parse_float=lambda text: float(text),
    parse_int=lambda text: int(text),
)


def _number_too_big(text: str) -> StatusError:
    numbers = (match for match in _STRING_OR_NUMBER.finditer(text) if match[1])
    position = next(match.start() for match in numbers if math.isinf(float(match[1])))
    return _error("Number too big to be stored in double.", text, position)


def _error(words: str, text: str, position: int) -> StatusError:
    offset = len(text[:position].encode("utf-8", "surrogateescape"))
    return invalid(f"JSON Parse error: {words} at offset: {offset}")


_INVALID_VALUE = "Invalid value."
_MISSING_NAME = "Missing a name for object member."
_MISSING_QUOTE = "Missing a closing quotation mark in string."
_WORDS = {
    "Expecting property name enclosed in double quotes": _MISSING_NAME,
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Invalid control character at": "Invalid escape character in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}


def _explained(text: str, message: str, position: int) -> tuple[str, str, int]:
    """Python's complaint about a text in RapidJSON's words, with the place that RapidJSON would name."""
    words = _WORDS.get(message, _INVALID_VALUE)
    if message == "Expecting value":
        position += _literal_length(text, position)
    elif message == "Expecting ',' delimiter":
        words, position = _unfinished(text, position)
    elif message.startswith("Illegal trailing comma"):  # since Python 3.13, which names the comma
        position = _after_space(text, position + 1)
        words = _MISSING_NAME if text[position] == "}" else _INVALID_VALUE
    elif message == "Unterminated string starting at":
        words, position = _MISSING_QUOTE, len(text)
    elif message == "Invalid control character at" and text[position] == "\0":
        words = _MISSING_QUOTE
    elif message == "Invalid \\uXXXX escape":
        position = text.rindex("\\u", 0, position + 2)
    return words, text, position


def _literal_length(text: str, position: int) -> int:
    """How much of true, -5 or the like there is before it goes wrong."""
    literals = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
    beginnings = (literal[:length] for literal in literals for length in range(len(literal)))
    return max(len(each) for each in beginnings if text.startswith(each, position))


def _unfinished(text: str, position: int) -> tuple[str, int]:
    """What is wrong where Python misses a comma."""
    if text[position - 1].isdigit():
        if text.startswith(".", position):
            return "Miss fraction part in number.", position + 1
        if text.startswith(("e", "E"), position):
            signed = text[position + 1 : position + 2] in ("+", "-")
            return "Miss exponent in number.", position + 1 + signed
    try:  # would a bracket do?
        _DECODER.raw_decode(text[:position] + "]", _start(text))
        in_array = True
    except json.JSONDecodeError as error:
        in_array = error.pos > position
    if in_array:
        return "Missing a comma or ']' after an array element.", position
    return "Missing a comma or '}' after an object member.", position


def _check_surrogates(text: str, end: int) -> None:
    """Python lets half a pair pass."""
    if "\\ud" in text or "\\uD" in text:
        for match in _ESCAPES.finditer(text, 0, end):
            if match[1]:
                raise _error("The surrogate pair in string is invalid.", text, match.start())


def type_name(value: Any) -> str:
    """RapidJSON's name for the type of a value."""
    if isinstance(value, bool) or value is None:
        return {None: "Null", False: "False", True: "True"}[value]
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def is_double(number: float) -> bool:
    """Whether RapidJSON keeps a number as a double; others are integers."""
    return not (isinstance(number, int) and number in _INT64)


def check_fits(number: float) -> None:
    """Raises OverflowError if a number is too big for a double."""
    if math.isinf(float(number)) and not isinstance(number, Constant):
        raise OverflowError


def shown(value: Any) -> str:
    """A value as messages show it: printed in full by the stock server, here cut when it is long."""
    text = ""
    for piece in _pieces(value, "\n"):
        text += piece
        if len(text) > _LARGEST_SHOWN:
            return text[:_LARGEST_SHOWN] + "...TRUNCATED"
    return text


def _pieces(value: Any, line: str) -> Iterator[str]:
    """Lazily, so that what is not shown costs nothing, however deep and long it is."""
    if isinstance(value, (dict, list)) and value:
        inner = line + _INDENT
        separator = "{" if isinstance(value, dict) else "["
        for each in value:
            yield separator + inner
            if isinstance(value, dict):
                yield quoted(each) + ": "
            yield from _pieces(value[each] if isinstance(value, dict) else each, inner)
            separator = ","
        yield line + ("}" if isinstance(value, dict) else "]")
    elif isinstance(value, str):
        yield quoted(value[: _LARGEST_SHOWN + 1])
    elif not isinstance(value, (int, float)) or not is_double(value):
        yield json.dumps(value)
    elif line != "\n":
        yield json.dumps(_saturated(value))
    else:  # one that stands alone goes another way there
        fits = abs(value) <= float(np.finfo(np.float32).max)
        yield decimals(np.array([_saturated(value)], np.float32 if fits else np.float64))[0]


def _saturated(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def quoted(text: str) -> str:
    """A string with its quotes."""
    return f'"{text.translate(_QUOTES)}"'


def decimals(numbers: np.ndarray) -> list[str]:
    """Numbers (float32 or float64, one dimension) in six digits where these suffice, else in 9 or 17."""
    texts: list[str] = []
    for start in range(0, len(numbers), _NUMBERS_AT_ONCE):
        texts += _decimals(numbers[start : start + _NUMBERS_AT_ONCE])
    return texts


def _decimals(numbers: np.ndarray) -> list[str]:
    values = numbers.tolist()
    full = "%.9g " if numbers.dtype == np.float32 else "%.17g "
    texts = (full * len(values) % tuple(values)).split()
    perhaps_short = np.arange(len(values)) if len(values) < _FEW else _perhaps_short(numbers)
    shorter = [f"{values[index]:g}" for index in perhaps_short.tolist()]
    with np.errstate(over="ignore"):
        rounded = np.array([float(text) for text in shorter]).astype(numbers.dtype)
    for place in np.flatnonzero(rounded == numbers[perhaps_short]).tolist():
        texts[perhaps_short[place]] = shorter[place]
    return [text if "." in text or "e" in text else _NOT_FINITE.get(text, text + ".0") for text in texts]


def _perhaps_short(numbers: np.ndarray) -> np.ndarray:
    """Where six digits may suffice; to try them everywhere costs more than all other work."""
    exact = numbers.astype(np.float64)
    with np.errstate(all="ignore"):
        scale = 10.0 ** (5 - np.floor(np.log10(np.abs(exact))))
        error = np.abs(np.rint(exact * scale) / scale - exact)
        return np.flatnonzero(~(error > 8.0 * np.spacing(np.abs(numbers))))


def arrays(texts: list[str], shape: Sequence[int], kept: int, depth: int | None) -> list[str]:
    """Elements in a tensor's order as arrays of its shape: one text for each index of the first `kept` axes.

    In one line if `depth` is None, else indented: so many arrays and objects are around these.
    """
    for axis in range(len(shape) - 1, kept - 1, -1):
        size, count = shape[axis], math.prod(shape[:axis])
        head, between, tail = "[", ", ", "]"
        if depth is not None:
            line = "\n" + _INDENT * (depth + axis - kept)
            head, between, tail = f"[{line}{_INDENT}", f",{line}{_INDENT}", f"{line}]"
        if size:
            starts = range(0, count * size, size)
            texts = [f"{head}{between.join(texts[start : start + size])}{tail}" for start in starts]
        else:
            texts = ["[]"] * count
    return texts


def members(names: Sequence[str], values: Sequence[str], depth: int) -> str:
    """An object, with so many arrays and objects around it."""
    line = "\n" + _INDENT * depth
    inside = (f"{line}{_INDENT}{quoted(name)}: {value}" for name, value in zip(names, values, strict=True))
    return f"{{{','.join(inside)}{line}}}"
