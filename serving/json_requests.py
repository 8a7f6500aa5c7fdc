"""HTTP requests, which are JSON, as protos: checks and words of the stock server (util/json_tensor.cc).

Differs from the stock server: inputs for which the signature has a default may be left out, in rows as in
columns, and an input that is the only one without a default needs no name (there all inputs must be there,
because it knows no defaults here). All rows must give the same ones. In messages long values are cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from serving import json_tensors, tensors
from serving.json_tensors import is_base64
from serving.json_text import Document, is_double, shown, type_name
from serving.messages import example_pb2, input_pb2, predict_pb2, tensor_pb2, types_pb2
from serving.rpc import StatusError, invalid


def signature_name(document: Document) -> str:
    """The signature that a request names, or ''.

    Raises:
        StatusError: the request is no object, or the name no string.
    """
    request = document.value
    if not isinstance(request, dict):
        raise _malformed(request, "Is not object")
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise _malformed(request, "not formatted correctly. 'signature_name' key must be a string value.")
    return _utf8(name)


def predict_request(document: Document, signature: Any) -> tuple[predict_pb2.PredictRequest, bool]:
    """The inputs that a request has for a signature (a SignatureDef), and whether it gives them in rows.

    Raises:
        StatusError: they are missing, or do not fit.
    """
    inputs = _Inputs(
        {name: signature.inputs[name].dtype for name in sorted(signature.inputs)},
        frozenset(signature.defaults),
    )
    with document.in_use():
        arrays, in_rows = _predict_inputs(document.value, inputs)
    request = predict_pb2.PredictRequest()
    for name, array in arrays.items():
        _write(array, inputs.dtypes[name], request.inputs[name])
    return request, in_rows


def _write(array: np.ndarray, dtype: int, proto: tensor_pb2.TensorProto) -> None:
    """As plain bytes, which who reads them need not convert; strings have no such form that is as fast."""
    if dtype == types_pb2.DT_STRING:
        tensors.to_proto(array, proto)
        return
    proto.dtype = dtype
    proto.tensor_shape.SetInParent()  # a scalar has a shape too, an empty one
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_content = array.tobytes()


class _Inputs(NamedTuple):
    dtypes: Mapping[str, int]
    with_default: frozenset[str]

    @property
    def required(self) -> set[str]:
        return self.dtypes.keys() - self.with_default

    def unnamed(self) -> str | None:
        """The input that is meant where none is named."""
        candidates = self.dtypes if len(self.dtypes) == 1 else self.required
        return next(iter(candidates)) if len(candidates) == 1 else None


def _predict_inputs(request: dict[str, Any], inputs: _Inputs) -> tuple[dict[str, np.ndarray], bool]:
    if not inputs.dtypes:
        name = request.get("signature_name") or "DEFAULT"
        raise invalid(f"Failed to get input map for signature: {name}")
    if "instances" not in request:
        if "inputs" not in request:
            raise invalid("Missing 'inputs' or 'instances' key")
        return _from_columns(request["inputs"], inputs), False
    if "inputs" in request:
        raise _malformed(
            request, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if not isinstance(request["instances"], list):
        raise _malformed(request, "Expecting 'instances' to be an list/array")
    if not request["instances"]:
        raise _malformed(request, "No values in 'instances' array")
    return _from_rows(request["instances"], inputs), True


def _from_columns(columns: Any, inputs: _Inputs) -> dict[str, np.ndarray]:
    if not _is_named(columns):
        name = inputs.unnamed()
        if name is None:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            )
        columns = {name: columns}
    arrays = {}
    for name, dtype in inputs.dtypes.items():
        if name in columns:
            arrays[name] = json_tensors.array(columns[name], dtype)
        elif name not in inputs.with_default:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return arrays


def _from_rows(rows: list[Any], inputs: _Inputs) -> dict[str, np.ndarray]:
    if not _is_named(rows[0]) and inputs.unnamed() is None:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as "
            "per tensorinfo_map"
        )
    columns = _columns(rows, inputs)
    if columns is not None:
        arrays = {name: json_tensors.dense(column, inputs.dtypes[name]) for name, column in columns.items()}
        whole = {name: array for name, array in arrays.items() if array is not None}
        if len(whole) == len(arrays):
            return whole
    raise _row_fault(rows, inputs)


def _columns(rows: list[Any], inputs: _Inputs) -> dict[str, list[Any]] | None:
    """The values of all rows, by input; None if not all rows give the same inputs, or not the right ones."""
    if not _is_named(rows[0]):
        return None if any(map(_is_named, rows)) else {inputs.unnamed() or "": rows}
    names = rows[0].keys()
    if not inputs.required <= names <= inputs.dtypes.keys():
        return None
    if not all(_is_named(row) and row.keys() == names for row in rows):
        return None
    return {name: [row[name] for row in rows] for name in names}


def _row_fault(rows: list[Any], inputs: _Inputs) -> StatusError:
    """What is wrong with rows, in the order in which the stock server looks."""
    shapes: dict[str, tuple[int, ...]] = {}
    for start in range(0, len(rows), json_tensors.SEARCHED_AT_ONCE):
        part = rows[start : start + json_tensors.SEARCHED_AT_ONCE]
        if start and _are_like(part, inputs, shapes):
            continue
        for index, row in enumerate(part, start):
            found = _fault_of_row(index, row, rows[0], inputs, shapes)
            if found is not None:
                return found
    return json_tensors.too_many_dimensions()  # with the one that the rows add


def _are_like(rows: list[Any], inputs: _Inputs, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether rows are as those before, of which the shapes are known."""
    columns = _columns(rows, inputs)
    if columns is None or columns.keys() != shapes.keys():
        return False
    arrays = {name: json_tensors.dense(column, inputs.dtypes[name]) for name, column in columns.items()}
    return all(array is not None and array.shape[1:] == shapes[name] for name, array in arrays.items())


def _fault_of_row(
    index: int, row: Any, first: Any, inputs: _Inputs, shapes: dict[str, tuple[int, ...]]
) -> StatusError | None:
    named = _is_named(first)
    if _is_named(row) != named:
        kinds = "object but got list" if named else "value/list but got object"
        return invalid(f"Expecting {kinds} at item {index} of input list")
    for name, value in row.items() if named else [(inputs.unnamed() or "", row)]:
        found = _item_fault(name, value, inputs, shapes)
        if found is not None:
            return invalid(
                f"Failed to process element: {index}{f' key: {name}' if named else ''} of 'instances' list. "
                f"Error: {found.code.name}: {found.message}"
            )
    names = inputs.required | first.keys() if named else set()
    if named and row.keys() != names:
        return invalid(
            f"Failed to process element: {index} of 'instances' list. JSON object: {shown(row)} "
            f"keys must be equal to: {','.join(sorted(names))}"
        )
    return None


def _item_fault(
    name: str, value: Any, inputs: _Inputs, shapes: dict[str, tuple[int, ...]]
) -> StatusError | None:
    if name not in inputs.dtypes:
        return invalid(f"JSON object: does not have named input: {name}")
    array = json_tensors.dense(value, inputs.dtypes[name])
    if array is None:
        return json_tensors.fault(value, inputs.dtypes[name])
    expected = shapes.setdefault(name, array.shape)
    if math.prod(expected) != array.size:
        return invalid(f"Expecting tensor size: {math.prod(expected)} but got: {array.size}")
    if expected != array.shape:
        return invalid(f"Expecting shape {_listed(expected)} but got: {_listed(array.shape)}")
    return None


def _listed(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def fill_examples(document: Document, request: Any) -> None:
    """Sets the `input` of a ClassificationRequest or a RegressionRequest.

    Raises:
        StatusError: there are no examples, or they do not fit.
    """
    with document.in_use():
        _fill_examples(document.value, request.input)


def _fill_examples(members: dict[str, Any], given: input_pb2.Input) -> None:
    sent: Any = given.example_list
    if "context" in members:
        sent = given.example_list_with_context
        _fill_example(members["context"], sent.context)
    if "examples" not in members:  # these words for regressions, too
        raise _malformed(members, "When method is classify, key 'examples' is expected and was not found")
    if not isinstance(members["examples"], list):
        raise _malformed(members, "Expecting 'examples' value to be an list/array")
    if not members["examples"]:
        raise _malformed(members, "'examples' value is an empty array")
    for each in members["examples"]:
        _fill_example(each, sent.examples.add())


def _fill_example(value: Any, example: example_pb2.Example) -> None:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_name(value)}")
    example.features.SetInParent()
    for name, content in value.items():
        feature = example.features.feature[_utf8(name)]  # there even if it has no values
        values = content if isinstance(content, list) else [content]
        kinds = [_kind(name, each) for each in values]
        for kind in kinds:
            if kind != kinds[0]:
                raise invalid(f"Unexpected element type in feature: {name} expecting type: {kinds[0]}")
        if "int64" in kinds:
            feature.int64_list.value.extend(map(int, values))
        elif "float" in kinds:
            array = json_tensors.array(values, types_pb2.DT_FLOAT)
            feature.float_list.value.extend(array.tolist())
        elif "bytes" in kinds:
            feature.bytes_list.value.extend(json_tensors.array(values, types_pb2.DT_STRING).tolist())


def _kind(name: str, value: Any) -> str:
    """The kind of list in a Feature that holds a value."""
    if isinstance(value, bool):
        return "int64"
    if isinstance(value, str) or is_base64(value):
        return "bytes"
    if isinstance(value, (int, float)):
        if is_double(value):
            return "float"
        if value >= 2**63:
            raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        return "int64"
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {type_name(value)}")


def _malformed(request: Any, complaint: str) -> StatusError:
    return invalid(f"JSON Value: {shown(request)} {complaint}")


def _is_named(value: Any) -> bool:
    """Whether a value is an object that names inputs."""
    return isinstance(value, dict) and not is_base64(value)


def _utf8(name: str) -> str:
    """A name that a proto can hold."""
    return name.encode("utf-8", "replace").decode()
