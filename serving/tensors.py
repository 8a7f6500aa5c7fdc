"""TensorProto <-> NumPy, as `Tensor::FromProto` and `Tensor::AsProtoField` do it in TensorFlow.

Written out because `tf.make_ndarray` accepts less (it refuses what the stock server takes) and
costs more per request, and because the client must not import TensorFlow.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from serving.messages import tensor_pb2, types_pb2

# A proto may say "this one value, a billion times". Beyond this many bytes we do not believe it.
MAX_REPEATED_BYTES = 1 << 26


class _Encoding(NamedTuple):
    array_dtype: np.dtype  # of the array
    field: str  # the TensorProto field that carries its values
    field_dtype: np.dtype  # of one element of that field, before it is cast or viewed
    viewed: bool  # True: the field holds the bits (or the parts) of a value, not the value


def _encoding(array_dtype: Any, field: str, field_dtype: Any, viewed: bool = False) -> _Encoding:
    return _Encoding(np.dtype(array_dtype), field, np.dtype(field_dtype), viewed)


_ENCODINGS = {
    types_pb2.DT_FLOAT: _encoding(np.float32, "float_val", np.float32),
    types_pb2.DT_DOUBLE: _encoding(np.float64, "double_val", np.float64),
    types_pb2.DT_INT32: _encoding(np.int32, "int_val", np.int32),
    types_pb2.DT_UINT8: _encoding(np.uint8, "int_val", np.int32),
    types_pb2.DT_INT16: _encoding(np.int16, "int_val", np.int32),
    types_pb2.DT_INT8: _encoding(np.int8, "int_val", np.int32),
    types_pb2.DT_UINT16: _encoding(np.uint16, "int_val", np.int32),
    types_pb2.DT_INT64: _encoding(np.int64, "int64_val", np.int64),
    types_pb2.DT_UINT32: _encoding(np.uint32, "uint32_val", np.uint32),
    types_pb2.DT_UINT64: _encoding(np.uint64, "uint64_val", np.uint64),
    types_pb2.DT_BOOL: _encoding(np.bool_, "bool_val", np.bool_),
    types_pb2.DT_STRING: _encoding(np.object_, "string_val", np.object_),
    types_pb2.DT_HALF: _encoding(np.float16, "half_val", np.uint16, viewed=True),
    types_pb2.DT_BFLOAT16: _encoding(ml_dtypes.bfloat16, "half_val", np.uint16, viewed=True),
    types_pb2.DT_COMPLEX64: _encoding(np.complex64, "scomplex_val", np.float32, viewed=True),
    types_pb2.DT_COMPLEX128: _encoding(np.complex128, "dcomplex_val", np.float64, viewed=True),
}
_ENUM_OF_DTYPE = {encoding.array_dtype: enum for enum, encoding in _ENCODINGS.items()}
# Fields of fixed width are packed as the plain bytes of the array: no Python object per element.
_PACKED_TAGS = {types_pb2.DT_FLOAT: b"\x2a", types_pb2.DT_DOUBLE: b"\x32"}  # fields 5 and 6


def dtype_name(dtype: np.dtype) -> str:
    """The name TensorFlow prints for a dtype: `float`, `double`, `int32`, `string`, ..."""
    return types_pb2.DataType.Name(_ENUM_OF_DTYPE[dtype]).removeprefix("DT_").lower()


def array_dtype(enum: int) -> np.dtype | None:
    """The NumPy dtype that carries a TensorFlow DataType; None where none does (resources, ...)."""
    encoding = _ENCODINGS.get(enum)
    return None if encoding is None else encoding.array_dtype


def to_array(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """The array in a proto; strings become an object array of bytes.

    Too few values: the last one is repeated; none: zeros; too many: the rest is ignored.

    Raises:
        ValueError: the proto is not a tensor (dtype, shape or content at fault).
    """
    encoding = _ENCODINGS.get(proto.dtype)
    if encoding is None:
        raise ValueError(f"dtype {proto.dtype} cannot be sent")
    shape = _shape(proto.tensor_shape)
    count = math.prod(shape)
    if proto.tensor_content:
        flat = _from_content(proto.tensor_content, encoding.array_dtype, count)
    else:
        flat = _from_field(getattr(proto, encoding.field), encoding, count)
    return flat.reshape(shape)


def _shape(proto: Any) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in proto.dim)
    if proto.unknown_rank or any(size < 0 for size in shape):
        raise ValueError("the shape is not fully known")
    return shape


def _from_content(content: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    if dtype == np.object_:
        return _object_array(_split_strings(content, count), count)
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes of content for {count} elements of {dtype.itemsize} bytes")
    return np.frombuffer(content, dtype)


def _split_strings(content: bytes, count: int) -> list[bytes]:
    """Undoes `port::EncodeStringList`: all lengths as varints, then all the bytes."""
    if count > len(content):  # each length takes at least one byte
        raise ValueError(f"content too short for {count} strings")
    lengths, position = [], 0
    for _ in range(count):
        length, shift = 0, 0
        while position < len(content) and content[position] & 0x80 and shift < 28:
            length |= (content[position] & 0x7F) << shift
            position, shift = position + 1, shift + 7
        if position >= len(content):
            raise ValueError("content ends within the lengths of its strings")
        lengths.append(length | content[position] << shift)
        position += 1
    if position + sum(lengths) != len(content):
        raise ValueError("the lengths of the strings do not add up to the content")
    strings = []
    for length in lengths:
        strings.append(content[position : position + length])
        position += length
    return strings


def _from_field(values: Any, encoding: _Encoding, count: int) -> np.ndarray:
    array_dtype, field_dtype = encoding.array_dtype, encoding.field_dtype
    if array_dtype == np.object_:
        flat = _object_array(values[:count], min(len(values), count))
    elif encoding.field == "half_val":  # int32 on the wire, of which the lower half counts
        flat = np.array(values[:count], np.int32).astype(field_dtype).view(array_dtype)
    elif encoding.viewed:  # complex: real and imaginary part in turn; an odd one out is dropped
        flat = np.array(values[: min(count, len(values) // 2) * 2], field_dtype).view(array_dtype)
    else:
        flat = np.array(values[:count], field_dtype).astype(array_dtype, copy=False)
    return flat if len(flat) == count else _repeat_last(flat, count)


def _repeat_last(flat: np.ndarray, count: int) -> np.ndarray:
    if count * flat.itemsize > MAX_REPEATED_BYTES:
        raise ValueError(f"{len(flat)} values stand for {count} elements")
    zero = b"" if flat.dtype == np.object_ else 0
    whole = np.full(count, flat[-1] if len(flat) else zero, flat.dtype)
    whole[: len(flat)] = flat
    return whole


def _object_array(strings: Any, count: int) -> np.ndarray:
    array = np.empty(count, np.object_)
    array[:] = strings
    return array


def to_content(array: Any, proto: tensor_pb2.TensorProto) -> None:
    """As `to_proto`, with the values as plain bytes in `tensor_content` (Tensor::AsProtoTensorContent)."""
    array = np.asarray(array, np.object_ if isinstance(array, bytes) else None)
    proto.dtype = _ENUM_OF_DTYPE[array.dtype]
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if array.dtype == np.object_:
        strings = array.reshape(-1).tolist()
        lengths = b"".join(_varint(len(string)) for string in strings)
        proto.tensor_content = lengths + b"".join(strings)
    else:
        proto.tensor_content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def to_proto(array: Any, proto: tensor_pb2.TensorProto) -> None:
    """Write an array (or a scalar; strings as bytes) into an empty proto, in its typed value field."""
    array = np.asarray(array, np.object_ if isinstance(array, bytes) else None)
    enum = _ENUM_OF_DTYPE[array.dtype]
    proto.dtype = enum
    proto.tensor_shape.SetInParent()  # a scalar has a shape too, an empty one
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if enum in _PACKED_TAGS:
        _merge_packed(array, _PACKED_TAGS[enum], proto)
        return
    encoding = _ENCODINGS[enum]
    flat = np.ascontiguousarray(array).reshape(-1)
    values = flat.view(encoding.field_dtype) if encoding.viewed else flat
    getattr(proto, encoding.field).extend(values.tolist())


def _merge_packed(array: np.ndarray, tag: bytes, proto: tensor_pb2.TensorProto) -> None:
    body = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    if body:
        proto.MergeFromString(tag + _varint(len(body)) + body)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
