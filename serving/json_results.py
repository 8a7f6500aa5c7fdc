"""Protos as the JSON that HTTP answers are made of, as the stock server prints it (util/json_tensor.cc).

It prints with four spaces of indentation, but what belongs to one row in one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format

from serving import json_tensors, json_text
from serving.messages import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    regression_pb2,
    tensor_pb2,
)
from serving.rpc import StatusError, invalid

_ROW = "\n        "


def predictions(outputs: Mapping[str, tensor_pb2.TensorProto]) -> str:
    """Outputs in rows; the name of an only one is omitted.

    Raises:
        StatusError: they have not the same number of rows, or a type that has no JSON.
    """
    rows = _check_rows(outputs)
    names = sorted(outputs)
    if len(names) == 1:
        (name,) = names
        texts = json_tensors.printed(name, outputs[name], kept=1, outside=2, lines=False)
        return _object("predictions", _row_array(", ".join(texts)))
    columns = [json_tensors.printed(name, outputs[name], kept=1, outside=3, lines=False) for name in names]
    objects = (json_text.members(names, values, 2) for values in zip(*columns, strict=True))
    return _object("predictions", _row_array(_ROW + f",{_ROW}".join(objects) if rows else ""))


def outputs(values: Mapping[str, tensor_pb2.TensorProto]) -> str:
    """Outputs in columns; the name of an only one is omitted.

    Raises:
        StatusError: one has a type that has no JSON.
    """
    _check_any(values)
    names = sorted(values)
    outside = 1 if len(names) == 1 else 2
    texts = [
        text
        for name in names
        for text in json_tensors.printed(name, values[name], kept=0, outside=outside, lines=True)
    ]
    return _object("outputs", texts[0] if len(names) == 1 else json_text.members(names, texts, 1))


def classifications(result: classification_pb2.ClassificationResult) -> str:
    """Label and score of each class of each example."""
    if not result.classifications:
        raise invalid("Cannot convert empty ClassificationResults to JSON")
    scores = [each.score for row in result.classifications for each in row.classes]
    texts = iter(json_text.decimals(np.array(scores, np.float32)))
    rows = (
        ", ".join(f"[{json_text.quoted(each.label)}, {next(texts)}]" for each in row.classes)
        for row in result.classifications
    )
    return _object("results", _row_array(", ".join(f"[{row}]" for row in rows)))


def regressions(result: regression_pb2.RegressionResult) -> str:
    """A number for each example."""
    if not result.regressions:
        raise invalid("Cannot convert empty RegressionResults to JSON")
    values = np.array([each.value for each in result.regressions], np.float32)
    return _object("results", f"[{', '.join(json_text.decimals(values))}]")


def status(response: get_model_status_pb2.GetModelStatusResponse) -> str:
    """The state of a model's versions, with all fields."""
    return (
        json_format.MessageToJson(
            response, always_print_fields_with_no_presence=True, indent=1, ensure_ascii=False
        )
        + "\n"
    )


def metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> str:
    """The signatures of a version, with all fields; put together from two messages, as there."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    if not response.metadata["signature_def"].Unpack(signatures):
        raise StatusError(grpc.StatusCode.INTERNAL, "Failed to unpack 'Any' object to 'SignatureDefMap'.")
    spec, signature_def = (
        json_format.MessageToJson(
            message,
            always_print_fields_with_no_presence=True,
            preserving_proto_field_name=True,
            indent=1,
            ensure_ascii=False,
        )
        for message in (response.model_spec, signatures)
    )
    return f'{{\n"model_spec":{spec}\n,\n"metadata": {{"signature_def": {signature_def}\n}}\n}}\n'


def models(states: Iterable[tuple[str, get_model_status_pb2.GetModelStatusResponse]]) -> str:
    """What is served: every model with its versions."""
    state_name = get_model_status_pb2.ModelVersionStatus.State.Name
    listed: list[dict[str, Any]] = [
        {
            "name": name,
            "versions": [
                {"version": str(each.version), "state": state_name(each.state)}
                for each in response.model_version_status
            ],
        }
        for name, response in states
    ]
    return json.dumps({"models": listed}, indent=4, ensure_ascii=False)


def error(message: str) -> str:
    """What went wrong."""
    return _object("error", json_text.quoted(message))


def _object(name: str, value: str) -> str:
    return json_text.members([name], [value], 0)


def _row_array(content: str) -> str:
    """The array of all rows: it ends in a line of its own, and only objects begin in one."""
    return f"[{content}\n    ]" if content else "[]"


def _check_any(outputs: Mapping[str, tensor_pb2.TensorProto]) -> None:
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")


def _check_rows(outputs: Mapping[str, tensor_pb2.TensorProto]) -> int:
    _check_any(outputs)
    rows = None
    for name, proto in sorted(outputs.items()):
        if not proto.tensor_shape.dim:
            raise invalid(f"Tensor name: {name} has no shape information ")
        found = proto.tensor_shape.dim[0].size
        if rows not in (None, found):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {found} expecting: {rows}")
        rows = found
    return rows or 0
