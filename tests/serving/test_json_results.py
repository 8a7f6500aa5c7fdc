"""Answers as JSON, character by character as the stock server's RapidJSON lays them out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from serving import json_results, tensors
from serving.messages import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    regression_pb2,
    tensor_pb2,
    types_pb2,
)
from serving.rpc import StatusError


def outputs(**arrays):
    protos = {}
    for name, array in arrays.items():
        protos[name] = tensor_pb2.TensorProto()
        tensors.to_proto(array, protos[name])
    return protos


def floats(*values):
    return np.array(values, np.float32)


def strings(*values):
    return np.array(values, np.object_)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"y": floats(3.5, 4, 5.5)}, '{\n    "predictions": [3.5, 4.0, 5.5\n    ]\n}'),
        (
            {"y": floats([1, np.nan], [0.2, -np.inf])},
            '{\n    "predictions": [[1.0, NaN], [0.2, -Infinity]\n    ]\n}',
        ),
        ({"y": np.zeros([0, 2])}, '{\n    "predictions": []\n}'),
        ({"y": np.zeros([2, 0])}, '{\n    "predictions": [[], []\n    ]\n}'),
        ({"y": strings(b'a"\x1b', "ä".encode())}, '{\n    "predictions": ["a\\"\\u001B", "ä"\n    ]\n}'),
        (
            {"y_bytes": strings([b"a"], [b"\xff"])},
            '{\n    "predictions": [[{\n                "b64": "YQ=="\n            }], [{\n'
            '                "b64": "/w=="\n            }]\n    ]\n}',
        ),
        (
            {"y": strings(b"\xff", b"fine")},
            '{\n    "predictions": [{\n            "b64": "/w=="\n        }, "fine"\n    ]\n}',
        ),
        (
            {"y": floats([1, 2], [3, 4]), "ok": np.array([True, False])},
            '{\n    "predictions": [\n        {\n            "ok": true,\n            "y": [1.0, 2.0]\n'
            '        },\n        {\n            "ok": false,\n            "y": [3.0, 4.0]\n'
            "        }\n    ]\n}",
        ),
        ({"a": np.zeros([0]), "b": np.zeros([0])}, '{\n    "predictions": []\n}'),
    ],
)
def test_rows(arrays, text):
    assert json_results.predictions(outputs(**arrays)) == text


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"y": floats(3.5, 4)}, '{\n    "outputs": [\n        3.5,\n        4.0\n    ]\n}'),
        ({"y": np.array(7, np.int64)}, '{\n    "outputs": 7\n}'),
        ({"y": np.zeros([2, 0])}, '{\n    "outputs": [\n        [],\n        []\n    ]\n}'),
        (
            {"a_bytes": strings(b"a"), "y": np.array([[2**64 - 1]], np.uint64)},
            '{\n    "outputs": {\n        "a_bytes": [\n            {\n                "b64": "YQ=="\n'
            '            }\n        ],\n        "y": [\n            [\n                18446744073709551615\n'
            "            ]\n        ]\n    }\n}",
        ),
    ],
)
def test_columns(arrays, text):
    assert json_results.outputs(outputs(**arrays)) == text


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64, np.bool_]
)
def test_columns_are_laid_out_as_the_standard_library_does(dtype):
    arrays = {"a": np.arange(12).reshape(2, 3, 2).astype(dtype), "b": np.array([1, 0], dtype)}
    wanted = json.dumps({"outputs": {name: array.tolist() for name, array in arrays.items()}}, indent=4)
    assert json_results.outputs(outputs(**arrays)) == wanted


def test_numbers_survive():
    array = np.random.default_rng(0).normal(size=[50, 40]).astype(np.float32)
    for text in (json_results.predictions(outputs(y=array)), json_results.outputs(outputs(y=array))):
        (values,) = json.loads(text).values()
        np.testing.assert_array_equal(np.array(values, np.float32), array)


@pytest.mark.parametrize(
    ("protos", "message"),
    [
        ({}, "Cannot convert empty tensor map to JSON"),
        (outputs(y=np.float32(1)), "Tensor name: y has no shape information "),
        (
            outputs(y=np.zeros(2), z=np.zeros(1)),
            "Tensor name: z has inconsistent batch size: 1 expecting: 2",
        ),
        (outputs(y=np.zeros(2, np.float16)), "Failed to write JSON value for tensor type: half"),
        (outputs(y=np.zeros(2, np.complex64)), "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_outputs_that_have_no_json(protos, message):
    with pytest.raises(StatusError) as raised:
        json_results.predictions(protos)
    assert raised.value.message == message


def test_classifications():
    result = classification_pb2.ClassificationResult()
    for row in ([("car", 0.2), ("bus", 1)], [("b\\", 0.7)], []):
        classes = result.classifications.add().classes
        for label, score in row:
            classes.add(label=label, score=score)
    text = '{\n    "results": [[["car", 0.2], ["bus", 1.0]], [["b\\\\", 0.7]], []\n    ]\n}'
    assert json_results.classifications(result) == text


def test_regressions():
    result = regression_pb2.RegressionResult()
    for value in (3.5, 4, float("nan")):
        result.regressions.add(value=value)
    assert json_results.regressions(result) == '{\n    "results": [3.5, 4.0, NaN]\n}'


def test_nothing_is_no_result():
    with pytest.raises(StatusError, match="Cannot convert empty ClassificationResults to JSON"):
        json_results.classifications(classification_pb2.ClassificationResult())
    with pytest.raises(StatusError, match="Cannot convert empty RegressionResults to JSON"):
        json_results.regressions(regression_pb2.RegressionResult())


STATUS = """{
 "model_version_status": [
  {
   "version": "123",
   "state": "AVAILABLE",
   "status": {
    "error_code": "OK",
    "error_message": ""
   }
  }
 ]
}
"""


def test_status():
    response = get_model_status_pb2.GetModelStatusResponse()
    response.model_version_status.add(version=123, state=30).status.SetInParent()
    assert json_results.status(response) == STATUS


METADATA = """{
"model_spec":{
 "name": "half",
 "version": "123",
 "signature_name": ""
}
,
"metadata": {"signature_def": {
 "signature_def": {
  "serving_default": {
   "inputs": {
    "x": {
     "name": "x:0",
     "dtype": "DT_FLOAT",
     "tensor_shape": {
      "dim": [
       {
        "size": "-1",
        "name": ""
       }
      ],
      "unknown_rank": false
     }
    }
   },
   "outputs": {
    "y": {
     "name": "y:0",
     "dtype": "DT_INVALID"
    }
   },
   "method_name": "tensorflow/serving/predict",
   "defaults": {}
  }
 }
}
}
}
"""


def test_metadata():
    signatures = get_model_metadata_pb2.SignatureDefMap()
    signature = signatures.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    signature.inputs["x"].name = "x:0"
    signature.inputs["x"].dtype = types_pb2.DT_FLOAT
    signature.outputs["y"].name = "y:0"
    signature.inputs["x"].tensor_shape.dim.add(size=-1)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = "half"
    response.model_spec.version.value = 123
    response.metadata["signature_def"].Pack(signatures)
    assert json_results.metadata(response) == METADATA


def test_errors():
    assert json_results.error('no "x"\n') == '{\n    "error": "no \\"x\\"\\n"\n}'
