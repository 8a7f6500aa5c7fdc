"""JSON values as arrays, compared with a walk over them element by element."""

from __future__ import annotations

import random

import numpy as np
import pytest

from serving import json_tensors
from serving.messages import types_pb2
from serving.rpc import StatusError

FLOAT, STRING = types_pb2.DT_FLOAT, types_pb2.DT_STRING
INT32 = (-(2**31), 2**31 - 1)
INTEGERS = {  # what is taken, of which smaller types keep the lower bits
    types_pb2.DT_INT8: INT32,
    types_pb2.DT_UINT8: INT32,
    types_pb2.DT_INT16: INT32,
    types_pb2.DT_INT32: INT32,
    types_pb2.DT_UINT32: (0, 2**32 - 1),
    types_pb2.DT_INT64: (-(2**63), 2**63 - 1),
    types_pb2.DT_UINT64: (0, 2**64 - 1),
}


def by_the_book(value, dtype):
    """Shape and elements of a value, element by element; None where one does not fit."""
    shape, inner = [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None

    def elements(part, level):
        if isinstance(part, list):
            fits = level < len(shape) and len(part) == shape[level]
            return [found for each in part for found in elements(each, level + 1)] if fits else [None]
        if level != len(shape):
            return [None]
        if dtype == STRING:
            return [part.encode() if isinstance(part, str) else None]
        if dtype == FLOAT:
            return [part if type(part) in (int, float) else None]
        low, high = INTEGERS[dtype]
        return [part if type(part) is int and low <= part <= high else None]

    found = elements(value, 0)
    return None if None in found else (tuple(shape), found)


@pytest.mark.parametrize("dtype", [FLOAT, STRING, *INTEGERS])
def test_arrays_are_what_they_are_element_by_element(dtype):
    chance = random.Random(dtype)
    numbers = [0, 1, -1, 127, 300, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, 2**64 - 1]
    valid = {FLOAT: [*numbers, 1.5, -2.5e-8], STRING: ["", "ä", "x" * 9]}.get(dtype, [0, 1, 7, *numbers])
    odd = [True, None, "z", 1.5, 2**80, {}, [], [1], -(2**80)]

    def nested(sizes):
        if chance.random() < 0.005:
            return chance.choice(odd)
        return [nested(sizes[1:]) for _ in range(sizes[0])] if sizes else chance.choice(valid)

    outcomes = set()
    for _ in range(1500):
        value = nested([chance.randint(0, 4) for _ in range(chance.randint(0, 4))])
        wanted = by_the_book(value, dtype)
        outcomes.add(wanted is None)
        if wanted is None:
            with pytest.raises(StatusError):
                json_tensors.array(value, dtype)
        else:
            shape, elements = wanted
            array = json_tensors.array(value, dtype)
            assert array.shape == shape
            if dtype in INTEGERS:
                bits = 8 * array.itemsize
                assert [each % 2**bits for each in array.reshape(-1).tolist()] == [
                    each % 2**bits for each in elements
                ]
            else:
                np.testing.assert_array_equal(array.reshape(-1), np.array(elements, array.dtype))
    assert outcomes == {True, False}


def test_arrays_of_more_elements_than_are_converted_at_once():
    values = [float(number) for number in range(200_000)]
    np.testing.assert_array_equal(json_tensors.array(values, FLOAT), np.arange(200_000, dtype=np.float32))
    values[150_000:150_002] = ["x", "y"]
    with pytest.raises(StatusError, match='JSON Value: "x" Type: String'):
        json_tensors.array(values, FLOAT)


def test_a_fault_far_into_an_array():
    values = [[[1.0, 2.0], [3.0, 4.0]] for _ in range(5000)]
    values[3000] = [[1.0, 2.0], [3.0]]
    values[4000] = None
    with pytest.raises(StatusError, match="unexpected size: 1 at level: 2 expected size: 2"):
        json_tensors.array(values, FLOAT)
    values[2999] = [[1.0], [2.0]]
    with pytest.raises(StatusError, match="unexpected size: 1 at level: 2 expected size: 2"):
        json_tensors.array(values, FLOAT)
    values[1234] = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    with pytest.raises(StatusError, match="unexpected size: 3 at level: 1 expected size: 2"):
        json_tensors.array(values, FLOAT)
