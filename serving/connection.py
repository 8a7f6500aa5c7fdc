"""A caller's side of the protocol: one server, one model, strings and numbers in and out.

Imports no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import grpc
import numpy as np

from serving import program, tensors
from serving.messages import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


class Token(NamedTuple):
    """One step of a generation. The bytes of a token need not be whole characters."""

    text: bytes
    log_prob: float  # nats
    done: bool


class Client:
    """Calls one server about one model; its errors say what to do about them.

    All methods raise UserError when there is no answer, or not within `timeout_s` seconds per call.
    """

    def __init__(self, server: str, model: str, timeout_s: float = 60.0):
        self.server = server
        self.model = model
        self.version: int | None = None  # that gave the last answer
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(server, options=[("grpc.max_receive_message_length", -1)])
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._management = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def predict(
        self, signature: str, inputs: Mapping[str, Any], version: int | None = None
    ) -> Mapping[str, Any]:
        """The outputs (as protos) of a signature, for inputs that are arrays or protos."""
        request = predict_pb2.PredictRequest(model_spec=self._spec(version))
        request.model_spec.signature_name = signature
        for alias, value in inputs.items():
            if isinstance(value, np.ndarray):
                tensors.to_proto(value, request.inputs[alias])
            else:
                request.inputs[alias].CopyFrom(value)
        response = self._call(self._prediction.Predict, request)
        self.version = response.model_spec.version.value
        return response.outputs

    def generate(self, prompt: str, options: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """A continuation of the prompt; `options` are further inputs of the signature `generate`."""
        outputs = self.predict("generate", {"prompt": _text(prompt), **options})
        return {
            "text": _decoded(_first(outputs, "text")),
            "num_tokens": int(_first(outputs, "num_tokens")),
            "log_prob": float(_first(outputs, "log_prob")),
        }

    def stream(
        self, prompt: str, max_new_tokens: int, options: Mapping[str, np.ndarray], seed: int | None = None
    ) -> Iterator[Token]:
        """Token by token, driven from here: the state goes to the server and comes back with each step.

        All steps go to the version that made the first state, since no other could read it.
        """
        state = self.predict("start", {"prompt": _text(prompt)})["state"]
        version = self.version
        for index in range(max_new_tokens):
            inputs = {"state": state, **options}
            if seed is not None:
                inputs["seed"] = np.array([[seed, index]], np.int32)
            outputs = self.predict("step", inputs, version)
            token = Token(
                _first(outputs, "token"), float(_first(outputs, "log_prob")), bool(_first(outputs, "done"))
            )
            yield token
            if token.done:
                return
            state = outputs["state"]

    def score(self, text: str) -> dict[str, Any]:
        """How likely the text is."""
        outputs = self.predict("score", {"text": _text(text)})
        return {
            "log_prob": float(_first(outputs, "log_prob")),
            "num_tokens": int(_first(outputs, "num_tokens")),
            "perplexity": float(_first(outputs, "perplexity")),
        }

    def classify(self, text: str) -> dict[str, Any]:
        """The text's likeliest label, and the probabilities of all."""
        outputs = self.predict("serving_default", {"text": _text(text)})
        labels = [_decoded(name) for name in _row(outputs, "labels")]
        probabilities = dict(zip(labels, map(float, _row(outputs, "probabilities")), strict=True))
        return {"label": _decoded(_first(outputs, "label")), "probabilities": probabilities}

    def tag(self, text: str) -> dict[str, list[Any]]:
        """Each token of the text, its tag, the probability of that, and its place in the text, in bytes."""
        outputs = self.predict("serving_default", {"text": _text(text)})
        length = int(_first(outputs, "lengths"))
        rows = {name: _row(outputs, name)[:length] for name in ("tokens", "tags", "scores", "starts", "ends")}
        strings = {name: [_decoded(value) for value in rows.pop(name)] for name in ("tokens", "tags")}
        return {**strings, **{name: row.tolist() for name, row in rows.items()}}

    def translate(self, text: str, options: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The text's translation; `options` are further inputs of the signature."""
        outputs = self.predict("serving_default", {"text": _text(text), **options})
        return {
            "translation": _decoded(_first(outputs, "translation")),
            "log_prob": float(_first(outputs, "log_prob")),
        }

    def answer(self, context: str, question: str) -> dict[str, Any]:
        """The answer, how likely it is, and where in the context it stands, in bytes; -1: nowhere."""
        outputs = self.predict("serving_default", {"context": _text(context), "question": _text(question)})
        return {
            "answer": _decoded(_first(outputs, "answer")),
            "start": int(_first(outputs, "start")),
            "end": int(_first(outputs, "end")),
            "score": float(_first(outputs, "score")),
        }

    def embed(self, text: str) -> dict[str, list[float]]:
        """The text as a vector."""
        outputs = self.predict("embed", {"text": _text(text)})
        return {"embedding": _row(outputs, "embedding").tolist()}

    def default(self, signature: str, alias: str) -> Any:
        """The first element of an input's default in a signature; None if it has none."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec(), metadata_field=["signature_def"]
        )
        response = self._call(self._prediction.GetModelMetadata, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        found = signatures.signature_def.get(signature)
        return None if found is None or alias not in found.defaults else _first(found.defaults, alias)

    def status(self) -> list[dict[str, Any]]:
        """Every version the server has seen of the model, newest first."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._spec())
        response = self._call(self._management.GetModelStatus, request)
        states = get_model_status_pb2.ModelVersionStatus.State
        codes = {code.value[0]: code.name for code in grpc.StatusCode}
        return [
            {
                "version": version.version,
                "state": states.Name(version.state),
                "error_code": codes.get(version.status.error_code, "UNKNOWN"),
                "error_message": version.status.error_message,
            }
            for version in response.model_version_status
        ]

    def _spec(self, version: int | None = None) -> model_pb2.ModelSpec:
        spec = model_pb2.ModelSpec(name=self.model)
        if version is not None:
            spec.version.value = version
        return spec

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise program.UserError(self._explain(error.code(), error.details() or "")) from error

    def _explain(self, code: grpc.StatusCode, details: str) -> str:
        if code is grpc.StatusCode.UNAVAILABLE:
            return f"no server answers at {self.server}; is zoo-serve running there? ({details})"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{self.server} gave no answer within {self._timeout_s:g} s; --timeout_s=N waits longer"
        if code is grpc.StatusCode.NOT_FOUND:
            return f"{self.server} does not serve the model {self.model!r}; is --model right? ({details})"
        if code is grpc.StatusCode.FAILED_PRECONDITION and "signature" in details:
            return f"{self.model!r} at {self.server} is not a model that can do this: {details}"
        return f"{self.server} refused: {code.name}: {details}"


def _text(text: str) -> np.ndarray:
    return np.array([text.encode("utf-8", "surrogateescape")], np.object_)  # the shell's bytes as they came


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _first(outputs: Mapping[str, Any], alias: str) -> Any:
    """The first element of an output of one row."""
    return _row(outputs, alias)[0]


def _row(outputs: Mapping[str, Any], alias: str) -> np.ndarray:
    """The elements of an output of one row."""
    if alias not in outputs:
        raise program.UserError(f"the model gives no output {alias!r}: {', '.join(sorted(outputs))}")
    return tensors.to_array(outputs[alias]).reshape(-1)
