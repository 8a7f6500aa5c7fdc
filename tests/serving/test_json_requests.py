"""Requests in JSON as protos: the cases and the words of the stock server."""

from __future__ import annotations

import json

import grpc
import numpy as np
import pytest

from serving import json_requests, json_text, tensors
from serving.messages import classification_pb2, meta_graph_pb2, tensor_pb2, types_pb2
from serving.rpc import StatusError

FLOAT, INT32, STRING = types_pb2.DT_FLOAT, types_pb2.DT_INT32, types_pb2.DT_STRING
X = {"x": FLOAT}


def proto(array):
    message = tensor_pb2.TensorProto()
    tensors.to_proto(array, message)
    return message


def floats(*values):
    return np.array(values, np.float32)


def strings(*values):
    return np.array(values, np.object_)


def signature(defaults=(), **inputs):
    message = meta_graph_pb2.SignatureDef()
    for name, dtype in inputs.items():
        message.inputs[name].dtype = dtype
    for name in defaults:
        message.defaults[name].CopyFrom(proto(floats(1)))
    return message


def fed(body, **inputs):
    """The arrays that a body gives a signature."""
    document = json_text.parse(body if isinstance(body, bytes) else body.encode())
    json_requests.signature_name(document)
    request, in_rows = json_requests.predict_request(document, signature(**inputs))
    assert in_rows == ("instances" in document.value)
    return {name: tensors.to_array(value) for name, value in request.inputs.items()}


def same(arrays, wanted):
    assert arrays.keys() == wanted.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, wanted[name])
        assert (array.dtype, array.shape) == (wanted[name].dtype, wanted[name].shape)


@pytest.mark.parametrize(
    ("body", "inputs", "wanted"),
    [
        ('{"instances": [1, 2.5]}', X, {"x": floats(1, 2.5)}),
        ('{"instances": [[1], [2]], "unknown": 3}', X, {"x": floats([1], [2])}),
        ('{"instances": [{"x": 1}, {"x": 2}]}', X, {"x": floats(1, 2)}),
        ('{"instances": [[], []]}', X, {"x": np.zeros([2, 0], np.float32)}),
        ('{"inputs": 1}', X, {"x": np.array(1, np.float32)}),
        ('{"inputs": {"x": [[1, 2]], "z": "ignored"}}', X, {"x": floats([1, 2])}),
        ('{"inputs": [1, -1], "inputs": 5}', {"x": INT32}, {"x": np.array([1, -1], np.int32)}),
        (
            '{"instances": [{"x": [1, NaN], "t": "a"}, {"t": "b", "x": [Infinity, -Infinity]}]}',
            {"x": FLOAT, "t": STRING},
            {"x": floats([1, np.nan], [np.inf, -np.inf]), "t": strings(b"a", b"b")},
        ),
        (
            '{"inputs": {"x": [3], "t": {"b64": "aGVsbG8="}}}',
            {"x": FLOAT, "t": STRING},
            {"x": floats(3), "t": np.array(b"hello", np.object_)},
        ),
        (
            '{"instances": [{"b64": "aGk="}, "\\u00e4", {"b64": " aG\\nk"}, {"b64": ""}]}',
            {"t": STRING},
            {"t": strings(b"hi", "ä".encode(), b"hi", b"")},
        ),
        (
            '{"instances": [[{"b64": "/w=="}], ["\\u0000"]]}',
            {"t": STRING},
            {"t": strings([b"\xff"], [b"\0"])},
        ),
        (b'{"inputs": ["\xff"]}', {"t": STRING}, {"t": strings(b"\xff")}),
        ('{"inputs": [true, false]}', {"b": types_pb2.DT_BOOL}, {"b": np.array([True, False])}),
        ('{"inputs": [300, -1]}', {"x": types_pb2.DT_UINT8}, {"x": np.array([44, 255], np.uint8)}),
        ('{"inputs": 1e39}', X, {"x": np.array(np.inf, np.float32)}),
        ('{"inputs": [18446744073709551616]}', {"x": types_pb2.DT_DOUBLE}, {"x": np.array([2.0**64])}),
        ('{"inputs": []}', {"x": types_pb2.DT_HALF}, {"x": np.zeros([0], np.float16)}),
    ],
)
def test_inputs(body, inputs, wanted):
    same(fed(body, **inputs), wanted)


OPTIONAL = {"x": FLOAT, "s": FLOAT, "k": FLOAT, "defaults": ("s", "k")}


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ('{"instances": [1, 2]}', {"x": floats(1, 2)}),
        ('{"instances": [{"x": 1}, {"x": 2}]}', {"x": floats(1, 2)}),
        ('{"instances": [{"x": 1, "k": 3}, {"k": 4, "x": 2}]}', {"x": floats(1, 2), "k": floats(3, 4)}),
        ('{"inputs": [1, 2]}', {"x": floats(1, 2)}),
        ('{"inputs": {"x": [1], "s": [9]}}', {"x": floats(1), "s": floats(9)}),
    ],
)
def test_inputs_with_defaults_may_be_left_out(body, wanted):
    same(fed(body, **OPTIONAL), wanted)


KEYS = "Failed to process element: {} of 'instances' list. JSON object: {} keys must be equal to: {}"
ELEMENT = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: {}"
TWO = {"x": FLOAT, "t": STRING}
TYPE = "JSON Value: {} is not of expected type: {}"
TOO_DEEP = "tensor parsing error: more than 64 dimensions"
TOO_BIG = "JSON Parse error: Number too big to be stored in double. at offset: {}"


@pytest.mark.parametrize(
    ("body", "inputs", "message"),
    [
        ("[1]", X, "JSON Value: [\n    1\n] Is not object"),
        ("null", X, "JSON Value: null Is not object"),
        (
            '{"signature_name": 5}',
            X,
            'JSON Value: {\n    "signature_name": 5\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        ("{}", {}, "Failed to get input map for signature: DEFAULT"),
        ('{"signature_name": "init"}', {}, "Failed to get input map for signature: init"),
        ("{}", X, "Missing 'inputs' or 'instances' key"),
        (
            '{"instances": [1], "inputs": [1]}',
            X,
            'JSON Value: {\n    "instances": [\n        1\n    ],\n    "inputs": [\n        1\n    ]\n} '
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        ),
        (
            '{"instances": 1}',
            X,
            "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array",
        ),
        (
            '{"instances": []}',
            X,
            "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
        ),
        (
            '{"instances": [1]}',
            TWO,
            "instances is a plain list, but expecting list of objects as multiple input tensors required as "
            "per tensorinfo_map",
        ),
        (
            '{"inputs": [1]}',
            TWO,
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map",
        ),
        ('{"inputs": {"x": 1}}', TWO, "Missing named input: t in 'inputs' object."),
        (
            '{"instances": [{"x": 1}]}',
            TWO,
            KEYS.format(0, '{\n    "x": 1\n}', "t,x"),
        ),
        (
            '{"instances": [{"x": 1, "z": 2}]}',
            X,
            "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: z",
        ),
        ('{"instances": [{"s": 1}]}', OPTIONAL, KEYS.format(0, '{\n    "s": 1\n}', "s,x")),
        ('{"instances": [{"x": 1, "s": 1}, {"x": 2}]}', OPTIONAL, KEYS.format(1, '{\n    "x": 2\n}', "s,x")),
        (
            '{"instances": [{"x": 1}, [2]]}',
            X,
            "Expecting object but got list at item 1 of input list",
        ),
        (
            '{"instances": [[2], {"x": 1}]}',
            X,
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            '{"instances": [1, "a"]}',
            X,
            ELEMENT.format(1, 'JSON Value: "a" Type: String is not of expected type: float'),
        ),
        (
            '{"instances": [[1, 2], [3]]}',
            X,
            ELEMENT.format(1, "Expecting tensor size: 2 but got: 1"),
        ),
        ('{"instances": [[1], 2]}', X, ELEMENT.format(1, "Expecting shape [1] but got: []")),
        (
            '{"instances": [[[], []], []]}',
            X,
            ELEMENT.format(1, "Expecting shape [2,0] but got: [0]"),
        ),
        (
            '{"instances": [[1, [2]]]}',
            X,
            ELEMENT.format(0, "Encountered list at unexpected level: 1 expected < 1"),
        ),
        (
            '{"inputs": [[1, 2], [3]]}',
            X,
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        (
            '{"inputs": [[1], 2]}',
            X,
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        ('{"inputs": [1, true]}', X, "JSON Value: true Type: True is not of expected type: float"),
        ('{"inputs": [1, 1.0]}', {"x": INT32}, "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ('{"inputs": null}', {"x": INT32}, "JSON Value: null Type: Null is not of expected type: int32"),
        (
            '{"inputs": [2147483648]}',
            {"x": INT32},
            TYPE.format("2147483648 Type: Number", "int32"),
        ),
        (
            '{"inputs": [-1]}',
            {"x": types_pb2.DT_UINT64},
            "JSON Value: -1 Type: Number is not of expected type: uint64",
        ),
        ('{"inputs": 5}', {"t": STRING}, "JSON Value: 5 Type: Number is not of expected type: string"),
        (
            '{"inputs": [{"b64": 5}]}',
            {"t": STRING},
            'JSON Value: {\n    "b64": 5\n} not formatted correctly for base64 data',
        ),
        ('{"inputs": [{"b64": "a"}]}', {"t": STRING}, "Unable to base64 decode"),
        ('{"inputs": [{"b64": "aGk=="}]}', {"t": STRING}, "Unable to base64 decode"),
        ('{"inputs": [{"b64": "a-=="}]}', {"t": STRING}, "Unable to base64 decode"),
        (
            '{"inputs": [{"b64": "aGk="}]}',
            X,
            'JSON Value: {\n    "b64": "aGk="\n} Type: Object is not of expected type: float',
        ),
        (
            '{"inputs": ' + "[" * 65 + "]" * 65 + "}",
            X,
            TOO_DEEP,
        ),
        (
            '{"inputs": ' + "[" * 800 + "]" * 800 + "}",
            X,
            TOO_DEEP,
        ),
        (
            '{"instances": ' + "[" * 65 + "]" * 65 + "}",
            X,
            TOO_DEEP,
        ),
        (
            '{"inputs": [1e999]}',
            X,
            TOO_BIG.format(12),
        ),
        (
            '{"instances": [1, -' + "9" * 400 + "]}",
            X,
            TOO_BIG.format(18),
        ),
        ('{"inputs": [1, 1e999]}', {"x": INT32}, TOO_BIG.format(15)),
        ('{"inputs": ["x", ' + "9" * 400 + "]}", {"t": STRING}, TOO_BIG.format(17)),
        ("[" + "9" * 400 + "]", X, "JSON Value: [\n    Infinity\n] Is not object"),
    ],
)
def test_inputs_that_do_not_fit(body, inputs, message):
    with pytest.raises(StatusError) as raised:
        fed(body, **inputs)
    assert (raised.value.code, raised.value.message) == (grpc.StatusCode.INVALID_ARGUMENT, message)


@pytest.mark.parametrize(
    ("place", "row", "message"),
    [
        (2000, {"x": [1, 2], "t": 3}, "Failed to process element: 2000 key: t of 'instances' list."),
        (3000, {"x": [1, 2, 3], "t": "a"}, "Expecting tensor size: 2 but got: 3"),
        (2999, {"x": [1, 2]}, "keys must be equal to: t,x"),
        (0, {"x": [1], "t": "a"}, "Failed to process element: 1 key: x of 'instances' list."),
        (4999, [1], "Expecting object but got list at item 4999 of input list"),
    ],
)
def test_a_fault_far_into_the_rows(place, row, message):
    rows = [{"x": [1, 2], "t": "a"}] * 5000
    rows[place] = row
    with pytest.raises(StatusError) as raised:
        fed(json.dumps({"instances": rows}), **TWO)
    assert message in raised.value.message


@pytest.mark.parametrize("dtype", ["HALF", "BFLOAT16", "COMPLEX64", "UINT16", "RESOURCE"])
def test_types_that_have_no_json(dtype):
    number = types_pb2.DataType.Value(f"DT_{dtype}")
    with pytest.raises(StatusError) as raised:
        fed('{"inputs": [2.5]}', x=number)
    message = f"Conversion of JSON Value: 2.5 to type: {dtype.lower()}"
    assert (raised.value.code, raised.value.message) == (grpc.StatusCode.UNIMPLEMENTED, message)


def examples(body):
    document = json_text.parse(body.encode())
    request = classification_pb2.ClassificationRequest()
    request.model_spec.signature_name = json_requests.signature_name(document)
    json_requests.fill_examples(document, request)
    return request


def test_examples():
    request = examples(
        '{"signature_name": "s", "context": {"q": "pizza", "none": []}, "examples": ['
        '{"names": ["foo", {"b64": "/w=="}], "ratings": [8.0, NaN, 1e39], "age": 20,'
        ' "mix": [1, true, false]},'
        '{"big": 18446744073709551616, "long": [-9223372036854775808, 9223372036854775807]}]}'
    )
    assert request.model_spec.signature_name == "s"
    sent = request.input.example_list_with_context
    assert sent.context.features.feature["q"].bytes_list.value == [b"pizza"]
    assert sent.context.features.feature["none"].WhichOneof("kind") is None
    first, second = (example.features.feature for example in sent.examples)
    assert first["names"].bytes_list.value == [b"foo", b"\xff"]
    np.testing.assert_array_equal(first["ratings"].float_list.value, [8, np.nan, np.inf])
    assert first["age"].int64_list.value == [20]
    assert first["mix"].int64_list.value == [1, 1, 0]
    assert second["big"].float_list.value == [2.0**64]
    assert second["long"].int64_list.value == [-(2**63), 2**63 - 1]
    assert len(examples('{"examples": [{}]}').input.example_list.examples) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{}", "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
        (
            '{"examples": 1}',
            "JSON Value: {\n    \"examples\": 1\n} Expecting 'examples' value to be an list/array",
        ),
        ('{"examples": []}', "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array"),
        ('{"examples": [[]]}', "Example must be JSON object but got JSON Array"),
        ('{"context": null}', "Example must be JSON object but got JSON Null"),
        ('{"examples": [{"a": [1, null]}]}', "Feature: a has element with unexpected JSON type: Null"),
        ('{"examples": [{"a": [[1]]}]}', "Feature: a has element with unexpected JSON type: Array"),
        ('{"examples": [{"a": {"b": 1}}]}', "Feature: a has element with unexpected JSON type: Object"),
        ('{"examples": [{"a": [1, 1.5]}]}', "Unexpected element type in feature: a expecting type: int64"),
        ('{"examples": [{"a": [1.5, "x"]}]}', "Unexpected element type in feature: a expecting type: float"),
        ('{"examples": [{"a": ["x", true]}]}', "Unexpected element type in feature: a expecting type: bytes"),
        (
            '{"examples": [{"a": 18446744073709551615}]}',
            "Feature: a has uint64_t element. Only int64_t is supported.",
        ),
        ('{"examples": [{"a": {"b64": "?"}}]}', "Unable to base64 decode"),
        (
            '{"examples": [{"a": 1e999}]}',
            TOO_BIG.format(20),
        ),
    ],
)
def test_examples_that_do_not_fit(body, message):
    with pytest.raises(StatusError) as raised:
        examples(body)
    assert (raised.value.code, raised.value.message) == (grpc.StatusCode.INVALID_ARGUMENT, message)
