"""rnn_zoo.serving.GenerationService: a text, token by token.

    service GenerationService {
      rpc Generate(tensorflow.serving.PredictRequest) returns (stream tensorflow.serving.PredictResponse);
    }

For every language model with the signatures `start` and `step`. What goes in and what comes out is told in
generation_service.proto, which is for clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool

from serving import tensors
from serving.batching import Batcher
from serving.messages import predict_pb2
from serving.metrics import Metrics
from serving.repository import Repository
from serving.rpc import StatusError, invalid, model_spec
from serving.streaming import Engine, Stream, Token
from serving.versions import Version

_FILE = "rnn_zoo/serving/generation.proto"
_DEFAULT_NEW_TOKENS = 100
_OWN_INPUTS = {"prompt": np.dtype(object), "max_new_tokens": np.dtype(np.int32)}
_PER_MESSAGE = "tokens_per_message"


def _service_descriptor() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package="rnn_zoo.serving", syntax="proto3")
    file.dependency.append(predict_pb2.DESCRIPTOR.name)
    method = file.service.add(name="GenerationService").method.add(name="Generate", server_streaming=True)
    method.input_type = f".{predict_pb2.PredictRequest.DESCRIPTOR.full_name}"
    method.output_type = f".{predict_pb2.PredictResponse.DESCRIPTOR.full_name}"
    pool = descriptor_pool.Default()
    pool.Add(file)
    return pool.FindFileByName(_FILE).services_by_name["GenerationService"]


SERVICE = _service_descriptor()


@dataclasses.dataclass(frozen=True)
class StreamLimits:
    """What all streams together and each of them may take; who sends a stream heeds `max_seconds`."""

    max_streams: int = 256
    max_tokens: int = 4096
    max_seconds: float = 600.0


class Generator:
    """Opens streams of the language models that a repository hands out."""

    def __init__(self, repository: Repository, batcher: Batcher, limits: StreamLimits, metrics: Metrics):
        self.limits = limits
        self._repository, self._batcher, self._metrics = repository, batcher, metrics
        self._engines: weakref.WeakKeyDictionary[Any, Engine] = weakref.WeakKeyDictionary()
        self._open = 0
        metrics.live_streams = lambda: self._open

    @contextlib.asynccontextmanager
    async def stream(
        self, spec: Any, inputs: Mapping[str, np.ndarray]
    ) -> AsyncIterator[tuple[Version, Stream]]:
        """The version that answers, and the text that it writes, from `inputs` of the signature `generate`.

        Raises:
            StatusError: an input is wrong, or too many streams are open.
        """
        if self._open >= self.limits.max_streams:
            message = f"all {self.limits.max_streams} streams are in use"
            raise StatusError(grpc.StatusCode.UNAVAILABLE, message)
        self._open += 1
        try:
            with self._repository.lease(spec) as version:
                stream = await self._start(version, inputs)
                try:
                    yield version, stream
                finally:
                    stream.closed = True
                    self._metrics.tokens.add(version.model_name, amount=stream.steps)
        finally:
            self._open -= 1

    async def _start(self, version: Version, inputs: Mapping[str, np.ndarray]) -> Stream:
        servable: Any = version.servable
        start, step = (_signature(servable, name) for name in ("start", "step"))
        settings = _checked(inputs, step)
        if "prompt" not in settings:
            raise invalid("prompt is missing")
        limit = _limit(settings, servable, self.limits.max_tokens)
        (state,) = await self._batcher.run(servable, start, [settings["prompt"]], ["state"])
        stream = Stream(state, settings, limit)
        if limit:
            engine = self._engines.get(servable)
            if engine is None:
                engine = self._engines[servable] = Engine(servable, asyncio.get_running_loop())
            engine.join(stream)
        return stream


class GenerationService:
    """Streams over gRPC."""

    def __init__(self, generator: Generator):
        self._generator = generator

    async def Generate(  # noqa: N802 - the RPC's name
        self, request: predict_pb2.PredictRequest
    ) -> AsyncIterator[predict_pb2.PredictResponse]:
        """Takes the inputs of the signature `generate`, of one row each, and `tokens_per_message`, int32 [1]:
        how many tokens a response waits for, 1 if not given. Responses have `token` string [n], `token_id`
        int32 [n], `log_prob` float32 [n] in nats and `done` bool [n], True for a text's end. A `seed` (a, b)
        draws the i-th token with (a, b + i).
        """
        spec = model_spec(request)
        inputs = {alias: _parsed(alias, proto) for alias, proto in request.inputs.items()}
        count = int(_one_row(_PER_MESSAGE, inputs.pop(_PER_MESSAGE, np.ones(1, np.int32)), np.int32)[0])
        if count < 1:
            raise invalid(f"{_PER_MESSAGE} is {count}, and has to be at least 1")
        async with self._generator.stream(spec, inputs) as (version, stream):
            response = predict_pb2.PredictResponse()
            response.model_spec.name = version.model_name
            response.model_spec.version.value = version.number
            response.model_spec.signature_name = "generate"
            while tokens := await stream.take(count):
                _write(tokens, response.outputs)
                yield response


def _signature(servable: Any, name: str) -> Any:
    signature = servable.signatures.get(name)
    if signature is None:
        raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    return signature


def _parsed(alias: str, proto: Any) -> np.ndarray:
    try:
        return tensors.to_array(proto)
    except ValueError as error:
        raise invalid(f"tensor parsing error: {alias}") from error


def _checked(inputs: Mapping[str, np.ndarray], step: Any) -> Mapping[str, np.ndarray]:
    """The inputs, each known, of one row and of its dtype."""
    dtypes = dict(zip(step.input_tensors, step.input_dtypes, strict=True)) | _OWN_INPUTS
    del dtypes["state"]
    if unknown := sorted(set(inputs) - set(dtypes)):
        raise invalid(f"unknown inputs {', '.join(unknown)}; there are {', '.join(sorted(dtypes))}")
    return {alias: _one_row(alias, value, dtypes[alias]) for alias, value in inputs.items()}


def _one_row(alias: str, value: np.ndarray, dtype: Any) -> np.ndarray:
    shape = (1, 2) if alias == "seed" else (1,)
    if value.shape != shape or value.dtype != dtype:
        expected, got = tensors.dtype_name(np.dtype(dtype)), tensors.dtype_name(value.dtype)
        raise invalid(f"{alias} is {got} {list(value.shape)}, and has to be {expected} {list(shape)}")
    return value


def _limit(settings: Mapping[str, np.ndarray], servable: Any, most: int) -> int:
    """How many tokens are asked for."""
    generate = servable.signatures.get("generate")
    default = None if generate is None else generate.defaults.get("max_new_tokens")
    value = settings.get("max_new_tokens", default)
    limit = min(_DEFAULT_NEW_TOKENS, most) if value is None else int(value[0])
    if not 0 <= limit <= most:
        raise invalid(f"max_new_tokens is {limit}, and has to be between 0 and {most}")
    return limit


def _write(tokens: Sequence[Token], outputs: Any) -> None:
    columns = {
        "token": np.array([token.text for token in tokens], np.object_),
        "token_id": np.array([token.id for token in tokens], np.int32),
        "log_prob": np.array([token.log_prob for token in tokens], np.float32),
        "done": np.array([token.done for token in tokens], np.bool_),
    }
    for alias, column in columns.items():
        outputs[alias].Clear()
        tensors.to_proto(column, outputs[alias])
