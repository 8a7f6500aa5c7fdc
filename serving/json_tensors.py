"""JSON values as tensors and tensors as JSON text: the types, limits and words of util/json_tensor.cc.

Differs from the stock server: arrays may have 64 dimensions, NumPy's limit; there it is 254. In messages
long values are cut. Strings that are not UTF-8 are printed as base64; there, as bytes that are no JSON.
"""

from __future__ import annotations

import base64
import binascii
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import grpc
import numpy as np

from serving import json_text, tensors
from serving.json_text import Constant, shown, type_name
from serving.messages import tensor_pb2, types_pb2
from serving.rpc import StatusError, invalid

_MAX_RANK = 64
SEARCHED_AT_ONCE = 256  # for faults: parts that are right are found out about faster than their elements
_VALUES_AT_ONCE = 1 << 16  # converted in one call into C, a few milliseconds, in which no other thread runs


def array(value: Any, dtype: int) -> np.ndarray:
    """A value, or nested lists of values, as an array for a TensorFlow DataType.

    Raises:
        StatusError: it is none, for the reason that the stock server gives.
        OverflowError: a number is too big for a double.
    """
    found = dense(value, dtype)
    if found is None:
        raise fault(value, dtype)
    return found


def dense(value: Any, dtype: int) -> np.ndarray | None:
    """The same, or None if it is none.

    Level by level, each in a few calls into C: a loop over the elements would take ten times as long.
    """
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        if set(map(type, level)) != {list} or len(shape) == _MAX_RANK:
            return None
        sizes = set(map(len, level))
        if len(sizes) > 1:
            return None
        shape += sizes
        level = list(chain.from_iterable(level))
    array_dtype, convert = tensors.array_dtype(dtype), _CONVERTERS.get(dtype)
    if array_dtype is None or (level and convert is None):
        return None
    found = np.empty(len(level), array_dtype)
    for start in range(0, len(level), _VALUES_AT_ONCE):
        part = level[start : start + _VALUES_AT_ONCE]
        values = convert(part) if convert else None
        if values is None:
            return None
        with np.errstate(over="ignore"):  # a double that is no float32 becomes infinite
            found[start : start + len(part)] = values
    return found.reshape(shape)


def _floats(values: Sequence[Any]) -> np.ndarray | None:
    """Raises OverflowError where a number was too big for a double."""
    if not set(map(type, values)) <= {int, float, Constant}:
        return None
    numbers = np.array(values, np.float64)
    if np.isinf(numbers).any() and any(type(value) is float and math.isinf(value) for value in values):
        raise OverflowError
    return numbers


def _integers(low: int, high: int, values: Sequence[Any]) -> np.ndarray | None:
    if set(map(type, values)) != {int} or min(values) < low or max(values) > high:
        return None
    return np.array(values, np.uint64 if high >= 2**63 else np.int64)


def _booleans(values: Sequence[Any]) -> Sequence[Any] | None:
    return values if set(map(type, values)) == {bool} else None


def _strings(values: Sequence[Any]) -> Sequence[Any] | None:
    if not set(map(type, values)) <= {str, dict}:
        return None
    strings = [_decoded(value) if isinstance(value, dict) else _encoded(value) for value in values]
    return None if None in strings else strings


def is_base64(value: Any) -> bool:
    """Whether a value is what stands for bytes: {"b64": "..."}."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decoded(value: dict[str, Any]) -> bytes | None:
    """The bytes that base64 stands for; white space does not count, and padding may be missing."""
    if not is_base64(value):
        return None
    digits = _encoded(value["b64"]).translate(None, b" \t\n\v\f\r")
    bare = digits.rstrip(b"=")
    padding = -len(bare) % 4
    if padding == 3 or len(digits) - len(bare) not in (0, padding):
        return None
    try:
        return base64.b64decode(bare + b"=" * padding, validate=True)
    except binascii.Error:
        return None


_int32 = functools.partial(_integers, -(2**31), 2**31 - 1)
_CONVERTERS: Mapping[int, Callable[[Sequence[Any]], Any]] = {
    types_pb2.DT_FLOAT: _floats,
    types_pb2.DT_DOUBLE: _floats,
    types_pb2.DT_INT32: _int32,
    types_pb2.DT_INT16: _int32,  # what does not fit wraps around, as there
    types_pb2.DT_INT8: _int32,
    types_pb2.DT_UINT8: _int32,
    types_pb2.DT_INT64: functools.partial(_integers, -(2**63), 2**63 - 1),
    types_pb2.DT_UINT32: functools.partial(_integers, 0, 2**32 - 1),
    types_pb2.DT_UINT64: functools.partial(_integers, 0, 2**64 - 1),
    types_pb2.DT_BOOL: _booleans,
    types_pb2.DT_STRING: _strings,
}


def fault(value: Any, dtype: int) -> StatusError:
    """Why a value is no array, in the stock server's words: the first fault, depth first."""
    shape, inner = [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    if len(shape) > _MAX_RANK:
        return too_many_dimensions()
    found = _first_fault(value, 0, shape, dtype)
    return found or invalid(f"tensors of type {_dtype_name(dtype)} cannot be sent")


def _first_fault(value: Any, level: int, shape: Sequence[int], dtype: int) -> StatusError | None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            return invalid(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {rank}"
            )
        return _leaf_fault(value, dtype)
    if level >= rank:
        return invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        return invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for start in range(0, len(value), SEARCHED_AT_ONCE):
        part = value[start : start + SEARCHED_AT_ONCE]
        if len(part) > 1 and _has_shape(part, dtype, (len(part), *shape[level + 1 :])):
            continue
        for each in part:
            found = _first_fault(each, level + 1, shape, dtype)
            if found is not None:
                return found
    return None


def _has_shape(value: Any, dtype: int, shape: tuple[int, ...]) -> bool:
    found = dense(value, dtype)
    return found is not None and found.shape == shape


def _leaf_fault(value: Any, dtype: int) -> StatusError | None:
    is_string = dtype == types_pb2.DT_STRING
    if isinstance(value, dict) and is_string:
        if not is_base64(value):
            return invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
        return invalid("Unable to base64 decode") if _decoded(value) is None else None
    if isinstance(value, (int, float)):
        json_text.check_fits(value)
    convert = _CONVERTERS.get(dtype)
    if convert is None and not isinstance(value, dict):
        message = f"Conversion of JSON Value: {shown(value)} to type: {_dtype_name(dtype)}"
        return StatusError(grpc.StatusCode.UNIMPLEMENTED, message)
    if convert is None or convert([value]) is None:
        return invalid(
            f"JSON Value: {shown(value)} Type: {type_name(value)} is not of expected type: "
            f"{_dtype_name(dtype)}"
        )
    return None


def _dtype_name(dtype: int) -> str:
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()


def too_many_dimensions() -> StatusError:
    return invalid(f"tensor parsing error: more than {_MAX_RANK} dimensions")


def printed(alias: str, proto: tensor_pb2.TensorProto, kept: int, outside: int, lines: bool) -> list[str]:
    """A tensor as JSON: one text for each index of its first `kept` axes.

    So many arrays and objects are around each of these; with `lines` every element has a line.

    Raises:
        StatusError: its type has no JSON.
    """
    values = tensors.to_array(proto)
    if values.size and proto.dtype not in _CONVERTERS:
        message = f"Failed to write JSON value for tensor type: {_dtype_name(proto.dtype)}"
        raise invalid(message)
    flat = values.reshape(-1)
    if proto.dtype == types_pb2.DT_STRING:
        depth = outside + values.ndim - kept
        texts = [_printed_string(each, alias.endswith("_bytes"), depth) for each in flat.tolist()]
    elif flat.dtype.kind == "f":
        texts = json_text.decimals(flat)
    elif flat.dtype == np.bool_:
        texts = ["true" if each else "false" for each in flat.tolist()]
    else:
        texts = list(map(str, flat.tolist()))
    return json_text.arrays(texts, values.shape, kept, outside if lines else None)


def _printed_string(value: bytes, as_bytes: bool, depth: int) -> str:
    if not as_bytes:
        try:
            return json_text.quoted(value.decode())
        except UnicodeDecodeError:
            pass
    return json_text.members(["b64"], [json_text.quoted(base64.b64encode(value).decode())], depth)
