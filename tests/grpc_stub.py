"""A gRPC server that answers what a test says and remembers what it was asked, and both clients to ask it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any

import grpc
import tensorflow as tf

from serving.client import AsyncClient, Client
from serving.messages import predict_pb2

DEADLINE = 60  # seconds until a test gives up
PREDICT = "/tensorflow.serving.PredictionService/Predict"
GENERATE = "/rnn_zoo.serving.GenerationService/Generate"


class Stub(grpc.GenericRpcHandler):
    """Answers by path: from a request's bytes and its context a message, or a generator of messages."""

    def __init__(
        self, answers: Mapping[str, Callable[[bytes, Any], Any]], credentials: Any = None, port: int = 0
    ):
        self.calls: list[str] = []
        self.metadata: list[dict[str, Any]] = []
        self._answers = answers
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[self], options=options)
        address = f"127.0.0.1:{port}"
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        self.address = f"127.0.0.1:{port}"

    def __enter__(self) -> Stub:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def service(self, details: Any) -> Any:
        answer = self._answers.get(details.method)
        if answer is None:
            return None
        self.calls.append(details.method)
        self.metadata.append({each.key: each.value for each in details.invocation_metadata})
        streams = inspect.isgeneratorfunction(answer)
        handler = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        return handler(answer, response_serializer=lambda message: message.SerializeToString())


def answering(version=5, **outputs):
    """A response of Predict."""
    response = predict_pb2.PredictResponse()
    response.model_spec.version.value = version
    for alias, value in outputs.items():
        response.outputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return response


@contextlib.contextmanager
def stub_of(response, path=PREDICT):
    """A server that gives this response always, and its requests."""
    requests = []

    def answer(body, _):
        requests.append(body)
        return response

    with Stub({path: answer}) as stub:
        yield stub.address, requests


def inputs_of(body):
    """The signature and the inputs of a request for Predict."""
    request = predict_pb2.PredictRequest.FromString(body)
    inputs = {alias: tf.make_ndarray(proto).tolist() for alias, proto in request.inputs.items()}
    return request.model_spec.signature_name, inputs


def with_client(kind, address, use, **options):
    """What `use` makes of a client: a value, an awaitable, or a stream, of which the list is made."""
    options = {"model": "model", "timeout_s": DEADLINE, **options}
    if kind == "sync":
        with Client(address, **options) as client:
            answer = use(client)
            return list(answer) if isinstance(answer, Iterator) else answer

    async def ask():
        async with AsyncClient(address, **options) as client:
            answer = use(client)
            return [each async for each in answer] if hasattr(answer, "__aiter__") else await answer

    return asyncio.run(ask())
