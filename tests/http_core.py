"""Something small behind the HTTP API, and the API on a socket."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
import numpy as np
import uvicorn

from serving import tensors
from serving.messages import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    meta_graph_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
    types_pb2,
)
from serving.rpc import StatusError, invalid

DEADLINE = 60


def _signatures() -> dict[str, meta_graph_pb2.SignatureDef]:
    scaled, words = meta_graph_pb2.SignatureDef(), meta_graph_pb2.SignatureDef()
    for name in ("x", "scale"):
        scaled.inputs[name].dtype = types_pb2.DT_FLOAT
    tensors.to_proto(np.array([2], np.float32), scaled.defaults["scale"])
    words.inputs["text"].dtype = types_pb2.DT_STRING
    named = {code.name.lower(): scaled for code in grpc.StatusCode}
    return {"serving_default": scaled, "words": words, "wait": scaled, "bug": scaled, **named}


class Core:
    """Prediction, management and repository in one.

    Versions 3 ("stable") and 4 of the models `m` and `a/b:c`. The signature `serving_default` is
    y = scale * x + 1; `words` gives words back, with their lengths; others are named after what they do.
    """

    def __init__(self) -> None:
        self.specs: list[model_pb2.ModelSpec] = []
        self.waiting = threading.Event()
        self.cancelled = threading.Event()
        self._signatures = _signatures()

    def model_names(self) -> list[str]:
        return ["a/b:c", "m", "not yet"]

    def signature(self, spec: model_pb2.ModelSpec) -> meta_graph_pb2.SignatureDef:
        self._check(spec)
        name = spec.signature_name or "serving_default"
        if name not in self._signatures:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        return self._signatures[name]

    def _check(self, spec: model_pb2.ModelSpec) -> None:
        self.specs.append(spec)
        if spec.name not in ("m", "a/b:c"):
            which = f"Latest({spec.name})"
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {which}")
        if spec.version_label not in ("", "stable"):
            raise invalid(f"Unrecognized servable version label: {spec.version_label}")

    async def Predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:  # noqa: N802
        self._check(request.model_spec)
        name = request.model_spec.signature_name
        if name == "wait":
            await self._wait()
        if name == "bug":
            raise RuntimeError("a secret")
        if name.upper() in grpc.StatusCode.__members__:
            raise StatusError(grpc.StatusCode[name.upper()], f"{name} as asked for")
        inputs = {alias: tensors.to_array(value) for alias, value in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        if name == "words":
            lengths = np.array([len(word) for word in inputs["text"]], np.int32)
            tensors.to_proto(inputs["text"], response.outputs["text"])
            tensors.to_proto(lengths, response.outputs["length"])
        else:
            y = inputs.get("scale", np.float32(2)) * inputs["x"] + np.float32(1)
            tensors.to_proto(np.asarray(y, np.float32), response.outputs["y"])
        return response

    async def _wait(self) -> None:
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def Classify(  # noqa: N802
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        self._check(request.model_spec)
        response = classification_pb2.ClassificationResponse()
        for example in request.input.example_list.examples:
            label = example.features.feature["text"].bytes_list.value[0]
            response.result.classifications.add().classes.add(label=label, score=0.2)
        return response

    async def Regress(self, request: regression_pb2.RegressionRequest) -> regression_pb2.RegressionResponse:  # noqa: N802
        self._check(request.model_spec)
        response = regression_pb2.RegressionResponse()
        sent = request.input.example_list_with_context
        for example in sent.examples:
            x = example.features.feature["x"].float_list.value[0]
            response.result.regressions.add(
                value=x + sent.context.features.feature["bias"].float_list.value[0]
            )
        return response

    async def GetModelMetadata(  # noqa: N802
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        self._check(request.model_spec)
        assert list(request.metadata_field) == ["signature_def"]
        signatures = get_model_metadata_pb2.SignatureDefMap()
        signatures.signature_def["words"].CopyFrom(self._signatures["words"])
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec={"name": "m"})
        response.metadata["signature_def"].Pack(signatures)
        return response

    def GetModelStatus(  # noqa: N802
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        spec = request.model_spec
        self.specs.append(spec)
        if spec.name not in ("m", "a/b:c"):
            message = f"Could not find any versions of model {spec.name}"
            raise StatusError(grpc.StatusCode.NOT_FOUND, message)
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in (4, 3):
            if spec.version.value in (0, version):
                state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
                response.model_version_status.add(version=version, state=state).status.SetInParent()
        return response


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Server(NamedTuple):
    """Where an application listens."""

    port: int

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request on a connection of its own; underscores in names of headers become hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE)


@contextlib.contextmanager
def served(application: Any) -> Iterator[Server]:
    """The application on a free port of this machine, in a thread of this process."""
    # With its protocol, or asyncio would not send small packets at once, and each answer took 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # callers wait in its queue until there are answers
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield Server(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
