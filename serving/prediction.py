"""tensorflow.serving.PredictionService: Predict, Classify and GetModelMetadata.

The checks, their order and their words are the stock server's (servables/tensorflow/predict_util.cc,
classifier.cc, and TensorFlow's cc/saved_model/util.cc).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np

from serving import tensors
from serving.messages import (
    classification_pb2,
    example_pb2,
    get_model_metadata_pb2,
    input_pb2,
    predict_pb2,
)
from serving.repository import Repository
from serving.rpc import StatusError, invalid, model_spec

_DEFAULT_SIGNATURE = "serving_default"
_SIGNATURES_FIELD = "signature_def"
_CLASSIFICATION = ("classes", "scores")


class PredictionService:
    """Answers from the versions that a repository hands out.

    Of a version's servable it uses `signatures`, `signature_protos` and `run` (see serving.saved_model).
    """

    def __init__(self, repository: Repository):
        self._repository = repository

    def Predict(  # noqa: N802 - the RPC's name
        self, request: predict_pb2.PredictRequest
    ) -> predict_pb2.PredictResponse:
        """Runs a signature; inputs left out take the signature's defaults."""
        spec = model_spec(request)
        signature_name = spec.signature_name or _DEFAULT_SIGNATURE
        response = predict_pb2.PredictResponse()
        with self._repository.lease(spec) as version:
            servable: Any = version.servable
            signature = servable.signatures.get(signature_name)
            if signature is None:
                message = f'Serving signature key "{signature_name}" not found.'
                raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, message)
            feeds = bind_inputs(signature, request.inputs)
            outputs = select_outputs(signature, request.output_filter)
            values = servable.run(signature, feeds, outputs)
            _echo(response.model_spec, spec.name, version.number, signature_name)
        for alias, value in zip(outputs, values, strict=True):
            tensors.to_proto(value, response.outputs[alias])
        return response

    def Classify(  # noqa: N802 - the RPC's name
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """Runs a signature that takes serialized tf.train.Examples and gives `classes` and `scores`."""
        spec = model_spec(request)
        signature_name = spec.signature_name or _DEFAULT_SIGNATURE
        examples = _examples(request.input)
        response = classification_pb2.ClassificationResponse()
        with self._repository.lease(spec) as version:
            servable: Any = version.servable
            signature = servable.signatures.get(signature_name)
            if signature is None:
                raise invalid(f"No signature was found with the name: {signature_name}")
            if len(signature.input_tensors) != 1:
                raise invalid("Expected one input Tensor.")
            outputs = [alias for alias in _CLASSIFICATION if alias in signature.output_tensors]
            if not outputs:
                raise invalid(
                    f"Expected classification signature outputs to contain one of {_CLASSIFICATION}"
                )
            values = servable.run(signature, [examples], outputs)
            _echo(response.model_spec, spec.name, version.number, signature_name)
        rows = dict(zip(outputs, values, strict=True))
        if any(value.ndim != 2 or len(value) != len(examples) for value in values):
            shapes = ", ".join(f"{alias} {value.shape}" for alias, value in rows.items())
            raise invalid(f"Expected outputs of [{len(examples)}, classes]; got {shapes}")
        for index in range(len(examples)):
            classes = response.result.classifications.add().classes
            for place in range(values[0].shape[1]):
                label, score = (
                    rows[alias][index, place] if alias in rows else None for alias in _CLASSIFICATION
                )
                classes.add(label=label, score=score)
        return response

    def GetModelMetadata(  # noqa: N802 - the RPC's name
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a version; there is no other metadata."""
        spec = model_spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != _SIGNATURES_FIELD:
                raise invalid(f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with self._repository.lease(spec) as version:
            servable: Any = version.servable
            for name, proto in servable.signature_protos.items():
                signatures.signature_def[name].CopyFrom(proto)
            _echo(response.model_spec, spec.name, version.number)
        response.metadata[_SIGNATURES_FIELD].Pack(signatures)
        return response


def _examples(sent: input_pb2.Input) -> np.ndarray:
    """The examples of a request, serialized; what they have in common is put into each."""
    kind = sent.WhichOneof("kind")
    examples = getattr(sent, kind).examples if kind else []
    if not examples:
        raise invalid("Input is empty.")
    if kind == "example_list":
        return np.array([each.SerializeToString() for each in examples], np.object_)
    whole = []
    for each in examples:
        example = example_pb2.Example()
        example.CopyFrom(sent.example_list_with_context.context)
        example.MergeFrom(each)  # its own features replace the context's of the same names
        whole.append(example.SerializeToString())
    return np.array(whole, np.object_)


def bind_inputs(signature: Any, inputs: Mapping[str, Any]) -> list[np.ndarray]:
    """One array for each input of the signature, in its order: the request's, or the default."""
    expected = signature.input_tensors
    if len(inputs) > len(expected) or (len(inputs) < len(expected) and not signature.defaults):
        raise invalid(_size_mismatch(set(inputs), set(expected)))
    arrays, used = [], []
    for alias, tensor in expected.items():
        if alias in inputs:
            arrays.append(_parse(alias, inputs[alias]))
            used.append(alias)
        elif alias in signature.defaults:
            arrays.append(signature.defaults[alias])
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {tensor}) not found in request and no default "
                f"value provided. Inputs expected to be in the request {{{_names(inputs)}}}, or default "
                f"input alias set: {_names(signature.defaults)}"
            )
    if len(used) != len(inputs):
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: {_names(used)}, "
            f"request input: {_names(inputs)}"
        )
    return arrays


def select_outputs(signature: Any, output_filter: Sequence[str]) -> list[str]:
    """The outputs that the request asks for, or all."""
    if not output_filter:
        return list(signature.output_tensors)
    selected: list[str] = []
    for alias in output_filter:
        if alias not in signature.output_tensors:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{_names(signature.output_tensors)}}}."
            )
        if alias in selected:
            raise invalid(f"duplicate output tensor alias: {alias}")
        selected.append(alias)
    return sorted(selected)


def _parse(alias: str, proto: Any) -> np.ndarray:
    try:
        return tensors.to_array(proto)
    except ValueError as error:
        raise invalid(f"tensor parsing error: {alias}") from error


def _size_mismatch(sent: set[str], expected: set[str]) -> str:
    return (
        f"input size does not match signature: {len(sent)}!={len(expected)} len({{{_names(sent)}}}) != "
        f"len({{{_names(expected)}}}). Sent extra: {{{_names(sent - expected)}}}. "
        f"Missing but required: {{{_names(expected - sent)}}}."
    )


def _names(aliases: Iterable[str]) -> str:
    return ",".join(sorted(aliases))


def _echo(spec: Any, name: str, version: int, signature_name: str = "") -> None:
    spec.name = name
    spec.version.value = version
    spec.signature_name = signature_name
