"""Conversions, compared with TensorFlow's own: `tf.io.parse_tensor` is `Tensor::FromProto`."""

import numpy as np
import pytest
import tensorflow as tf

from serving import tensors
from serving.messages import tensor_pb2, types_pb2

ARRAYS = {
    "float": np.array([[1.5, -2.25, np.inf], [np.nan, 0, 3e38]], np.float32),
    "double": np.array([[1e300], [-0.1]]),
    "int32": np.array([-(2**31), 2**31 - 1], np.int32),
    "uint8": np.array([[0, 255]], np.uint8),
    "int16": np.array([-32768, 32767], np.int16),
    "int8": np.array([-128, 127], np.int8),
    "uint16": np.array([0, 65535], np.uint16),
    "int64": np.array([-(2**63), 2**63 - 1], np.int64),
    "uint32": np.array([0, 2**32 - 1], np.uint32),
    "uint64": np.array([0, 2**64 - 1], np.uint64),
    "bool": np.array([True, False, True]),
    "string": np.array([[b"", b"\xff\x00z"], [b"a" * 200, "ä".encode()]], np.object_),
    "half": np.array([1.5, -65504], np.float16),
    "bfloat16": np.array([1.5, -3e38], tf.bfloat16.as_numpy_dtype),
    "complex64": np.array([1 + 2j, -3.5j], np.complex64),
    "complex128": np.array([[1e300 + 2j]], np.complex128),
    "scalar": np.array(2.5, np.float32),
    "scalar string": np.array(b"word", np.object_),
    "no elements": np.zeros([2, 0, 3], np.float32),
    "no strings": np.zeros([0], np.object_),
    "long": np.arange(1000, dtype=np.float32),
}


def written(array):
    proto = tensor_pb2.TensorProto()
    tensors.to_proto(array, proto)
    return proto


def read_by_tensorflow(proto):
    return tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype)).numpy()


def same(ours, theirs):
    theirs = np.asarray(theirs, np.object_ if isinstance(theirs, bytes) else None)
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_written_reads_the_same_here_and_in_tensorflow(name):
    proto = written(ARRAYS[name])
    same(tensors.to_array(proto), ARRAYS[name])
    same(ARRAYS[name], read_by_tensorflow(proto))
    assert not proto.tensor_content  # typed fields, as the stock server answers


@pytest.mark.parametrize("name", ARRAYS)
def test_tensor_content_is_read(name):
    proto = tensor_pb2.TensorProto.FromString(tf.io.serialize_tensor(ARRAYS[name]).numpy())
    same(tensors.to_array(proto), ARRAYS[name])


@pytest.mark.parametrize("count", [0, 1, 2, 6, 9])
@pytest.mark.parametrize("name", [name for name in ARRAYS if ARRAYS[name].ndim and ARRAYS[name].size])
def test_too_few_and_too_many_values(name, count):
    proto = written(np.resize(ARRAYS[name].reshape(-1), [count]))
    del proto.tensor_shape.dim[:]
    proto.tensor_shape.dim.add(size=2)
    proto.tensor_shape.dim.add(size=3)
    same(tensors.to_array(proto), read_by_tensorflow(proto))


def test_an_odd_part_of_a_complex_number_is_dropped():
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_COMPLEX64, scomplex_val=[1, 2, 3])
    proto.tensor_shape.dim.add(size=1)
    same(tensors.to_array(proto), read_by_tensorflow(proto))


def malformed():
    def shaped(*sizes, **fields):
        shape = {"dim": [{"size": size} for size in sizes]}
        return tensor_pb2.TensorProto(tensor_shape=shape, **fields)

    return {
        "no dtype": shaped(1, float_val=[1]),
        "an unknown dtype": shaped(1, dtype=99),
        "a reference": shaped(1, dtype=types_pb2.DT_FLOAT_REF, float_val=[1]),
        "a resource": shaped(1, dtype=types_pb2.DT_RESOURCE),
        "a negative size": shaped(-1, dtype=types_pb2.DT_FLOAT),
        "unknown rank": tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape={"unknown_rank": True}),
        "too large": shaped(2**40, 2**40, dtype=types_pb2.DT_FLOAT, float_val=[1]),
        "one value for all memory": shaped(2**34, dtype=types_pb2.DT_FLOAT, float_val=[1]),
        "short content": shaped(2, dtype=types_pb2.DT_FLOAT, tensor_content=b"1234567"),
        "long content": shaped(2, dtype=types_pb2.DT_FLOAT, tensor_content=b"123456789"),
        "string lengths missing": shaped(3, dtype=types_pb2.DT_STRING, tensor_content=b"\x81\x81\x81"),
        "string lengths wrong": shaped(2, dtype=types_pb2.DT_STRING, tensor_content=b"\x01\x05ab"),
        "many strings": shaped(2**40, dtype=types_pb2.DT_STRING, tensor_content=b"\x01a"),
        "too many dimensions": shaped(*[1] * 100, dtype=types_pb2.DT_FLOAT, float_val=[1]),
        "a huge empty shape": shaped(0, 2**62, 2**62, dtype=types_pb2.DT_FLOAT),
    }


@pytest.mark.parametrize("case", malformed())
def test_malformed_protos_are_value_errors(case):
    with pytest.raises(ValueError, match=r"."):
        tensors.to_array(malformed()[case])


def test_names_are_those_of_tensorflow_messages():
    named = [name for name in ARRAYS if " " not in name and name not in ("scalar", "long")]
    assert [tensors.dtype_name(ARRAYS[name].dtype) for name in named] == named
