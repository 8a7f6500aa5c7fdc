"""tensorflow.serving.PredictionService: Predict, Classify, Regress, MultiInference and GetModelMetadata.

The checks, their order and their words are the stock server's (servables/tensorflow/predict_util.cc,
multi_inference.cc, and TensorFlow's cc/saved_model/util.cc).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import grpc
import numpy as np

from serving import inference, tensors
from serving.messages import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    meta_graph_pb2,
    predict_pb2,
    regression_pb2,
)
from serving.metrics import Metrics
from serving.rpc import StatusError, invalid, model_spec
from serving.versions import Version

_DEFAULT_SIGNATURE = "serving_default"
_SIGNATURES_FIELD = "signature_def"


class Leasing(Protocol):
    """Hands out versions, as a Repository does."""

    def lease(self, spec: Any) -> Version: ...


class Running(Protocol):
    """Runs signatures, as a Batcher does."""

    async def run(
        self, servable: Any, signature: Any, feeds: Sequence[np.ndarray], outputs: Sequence[str]
    ) -> Sequence[Any]: ...


class PredictionService:
    """Answers from the versions that a repository hands out.

    Of a version's servable it uses `signatures`, `signature_protos` and `run` (see serving.saved_model).
    """

    def __init__(
        self, repository: Leasing, batcher: Running, metrics: Metrics, as_tensor_content: bool = False
    ):
        self._repository, self._batcher, self._metrics = repository, batcher, metrics
        self._write = tensors.to_content if as_tensor_content else tensors.to_proto

    async def Predict(  # noqa: N802 - the RPC's name
        self, request: predict_pb2.PredictRequest
    ) -> predict_pb2.PredictResponse:
        """Runs a signature; inputs left out take the signature's defaults."""
        spec = model_spec(request)
        response = predict_pb2.PredictResponse()
        with self._repository.lease(spec) as version:
            signature = predict_signature(version, spec)
            feeds = bind_inputs(signature, request.inputs)
            outputs = select_outputs(signature, request.output_filter)
            values = await self._run("Predict", version, signature, feeds, outputs)
        _echo(response.model_spec, version, signature.name)
        for alias, value in zip(outputs, values, strict=True):
            self._write(value, response.outputs[alias])
        return response

    async def _run(
        self, api: str, version: Version, signature: Any, feeds: Sequence[np.ndarray], outputs: Sequence[str]
    ) -> Sequence[Any]:
        started = time.perf_counter()
        values = await self._batcher.run(version.servable, signature, feeds, outputs)
        microseconds = (time.perf_counter() - started) * 1e6
        self._metrics.runtime_latency.observe(microseconds, version.model_name, api, "TF1")
        return values

    async def Classify(  # noqa: N802 - the RPC's name
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """Runs a signature that takes serialized tf.train.Examples and gives `classes` and `scores`."""
        response = classification_pb2.ClassificationResponse()
        await self._infer(request, inference.Classification(), response)
        return response

    async def Regress(  # noqa: N802 - the RPC's name
        self, request: regression_pb2.RegressionRequest
    ) -> regression_pb2.RegressionResponse:
        """Runs a signature that takes serialized tf.train.Examples and gives numbers."""
        response = regression_pb2.RegressionResponse()
        await self._infer(request, inference.Regression(), response)
        return response

    async def _infer(self, request: Any, task: inference.Task, response: Any) -> None:
        spec = model_spec(request)
        examples = inference.examples(request.input)
        with self._repository.lease(spec) as version:
            name = spec.signature_name or _DEFAULT_SIGNATURE
            signature = _servable(version).signatures.get(name)
            if signature is None:
                raise invalid(f"No signature was found with the name: {name}")
            response.result.CopyFrom(await self._result(version, signature, task, examples))
        _echo(response.model_spec, version, name)

    async def _result(
        self, version: Version, signature: Any, task: inference.Task, examples: np.ndarray
    ) -> Any:
        outputs = task.outputs(signature)
        self._metrics.examples.add(version.model_name, amount=len(examples))
        self._metrics.example_counts.observe(len(examples), version.model_name)
        values = await self._run(task.API, version, signature, [examples], outputs)
        return task.result(dict(zip(outputs, values, strict=True)), len(examples))

    async def MultiInference(  # noqa: N802 - the RPC's name
        self, request: inference_pb2.MultiInferenceRequest
    ) -> inference_pb2.MultiInferenceResponse:
        """Classifies and regresses the same examples by several signatures of one model."""
        if not request.tasks:
            raise invalid("Missing ModelSpec")
        response = inference_pb2.MultiInferenceResponse()
        with self._repository.lease(model_spec(request.tasks[0])) as version:
            tasks = _checked_tasks(version, request.tasks)
            examples = inference.examples(request.input)
            for sent, (signature, task) in zip(request.tasks, tasks, strict=True):
                answer = response.results.add()
                result = await self._result(version, signature, task, examples)
                getattr(answer, task.FIELD).CopyFrom(result)
                _echo(answer.model_spec, version, sent.model_spec.signature_name)
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
            for name, proto in _servable(version).signature_protos.items():
                signatures.signature_def[name].CopyFrom(proto)
            _echo(response.model_spec, version)
        response.metadata[_SIGNATURES_FIELD].Pack(signatures)
        return response

    def signature(self, spec: Any) -> meta_graph_pb2.SignatureDef:
        """The signature that a request over HTTP names, which has to be known to read its JSON."""
        name = spec.signature_name or _DEFAULT_SIGNATURE
        with self._repository.lease(spec) as version:
            proto = _servable(version).signature_protos.get(name)
        if proto is None:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        return proto


def _servable(version: Version) -> Any:
    return version.servable


def predict_signature(version: Version, spec: Any) -> Any:
    """The signature that a PredictRequest names."""
    name = spec.signature_name or _DEFAULT_SIGNATURE
    signature = _servable(version).signatures.get(name)
    if signature is None:
        raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    return signature


def _checked_tasks(version: Version, sent: Sequence[Any]) -> list[tuple[Any, inference.Task]]:
    """Signature and kind of each task of a MultiInferenceRequest."""
    tasks: dict[str, tuple[Any, inference.Task]] = {}
    inputs = set()
    for each in sent:
        spec = each.model_spec
        if not spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if spec.name != version.model_name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = spec.signature_name or _DEFAULT_SIGNATURE
        if name in tasks:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        signature = _servable(version).signatures.get(name)
        if signature is None:
            raise invalid(f"Requested signature not found in model graph: {name}")
        task = inference.TASKS.get(each.method_name)
        if task is None:
            message = f"Unsupported signature method_name: {each.method_name}"
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, message)
        task.outputs(signature)
        inputs.update(signature.input_tensors.values())
        if len(inputs) > 1:
            raise invalid("Input tensor must be the same for all Signatures.")
        tasks[name] = signature, task
    return list(tasks.values())


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


def _echo(spec: Any, version: Version, signature_name: str = "") -> None:
    spec.name = version.model_name
    spec.version.value = version.number
    spec.signature_name = signature_name
