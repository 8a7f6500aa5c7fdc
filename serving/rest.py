"""The stock server's HTTP API (model_servers/http_rest_api_handler.cc) as an ASGI application.

Differs from the stock server: GET /v1/models lists what is served, GET /healthz says whether all of it can
answer, the query of a URL does not count as a part of its path, verbs may be in capitals, errors always have
a JSON body, and a request whose caller has gone is given up.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import re
import time
import urllib.parse
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

import grpc
from absl import logging
from starlette.applications import Starlette
from starlette.datastructures import URLPath
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, NoMatchFound, Route
from starlette.types import Receive, Scope, Send

from serving import http_gate, json_requests, json_results, json_text
from serving.http_gate import error_response
from serving.messages import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)
from serving.rpc import Observer, StatusError, invalid, unobserved

_THREAD_BYTES = 1 << 16  # what takes longer to convert than to hand over is converted in a thread

_ANY_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_FLAGS = re.ASCII | re.IGNORECASE
_PATHS = {
    "GET": re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_ANY_VERSION}(?:/(?P<verb>metadata))?", _FLAGS),
    "POST": re.compile(
        rf"/v1/models/(?P<name>[^/:]+){_ANY_VERSION}:(?P<verb>classify|regress|predict)", _FLAGS
    ),
}
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the API is offered."""

    timeout_seconds: float = 30.0  # 0: none
    max_body_bytes: int = 64 << 20  # also after decompression
    cors: bool = False  # lets web pages of all origins call
    bearer_token: str = ""  # '': everybody may call
    metrics_path: str = ""  # '': there are none
    metrics: Callable[[], bytes] = bytes  # in Prometheus' text format
    ready: Callable[[], bool] = lambda: True  # what GET /healthz says
    observe: Observer = unobserved  # of what is under /v1/, with methods named "predict", ..., or ""


def application(
    prediction: Any, management: Any, repository: Any, settings: Settings, routes: Sequence[BaseRoute] = ()
) -> Starlette:
    """The API over a PredictionService, a ModelService and the repository behind them.

    `routes` are served besides, under the same rules; a StatusError that they raise becomes a JSON error.
    Where a stream is to end with its caller, it watches `receive`, as Starlette's StreamingResponse does.
    """

    async def health(_: Request) -> Response:
        if settings.ready():
            return PlainTextResponse("ok\n")
        return error_response(StatusError(grpc.StatusCode.UNAVAILABLE, "Not all models are available"))

    async def metrics(_: Request) -> Response:
        return Response(settings.metrics(), headers={"Content-Type": "text/plain"})

    table = [Route(http_gate.HEALTH_PATH, health), *routes]
    if settings.metrics_path:
        table.append(Route(settings.metrics_path, metrics))
    table.append(_Models(prediction, management, repository, settings))
    return Starlette(
        routes=table,
        middleware=_middleware(settings),
        exception_handlers={StatusError: _status_error, Exception: _unexpected},
    )


def _middleware(settings: Settings) -> list[Middleware]:
    """Outermost first."""
    timeout_seconds = settings.timeout_seconds if settings.timeout_seconds > 0 else None
    layers = [Middleware(http_gate.BoundedBody, settings.max_body_bytes, timeout_seconds)]
    if settings.bearer_token:
        layers.insert(0, Middleware(http_gate.BearerToken, settings.bearer_token))
    if settings.cors:
        headers = "Content-Type, Authorization" if settings.bearer_token else "Content-Type"
        layers.insert(0, Middleware(http_gate.CrossOrigin, headers))
    return layers


async def _status_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, StatusError)
    return error_response(error)


async def _unexpected(request: Request, _: Exception) -> Response:
    return error_response(_internal(request.method, request.scope["path"]))


def _internal(method: str, path: str) -> StatusError:
    return StatusError(grpc.StatusCode.INTERNAL, f"{method} {path} failed; the server's log says why")


class _Target(NamedTuple):
    """What a URL means."""

    model_spec: model_pb2.ModelSpec
    verb: str

    @classmethod
    def parse(cls, method: str, path: str, query: str) -> _Target:
        """From a path as it was sent, since names may contain what separates them."""
        match = _PATHS[method].fullmatch(path) if method in _PATHS else None
        if match is None:
            raise invalid(f"Malformed request: {method} {path}{'?' if query else ''}{query}")
        spec = model_pb2.ModelSpec(name=urllib.parse.unquote(match["name"] or ""))
        if match["version"]:
            number = match["version"].lstrip("0")
            if len(number) > 19 or int(number or "0") >= 2**63:
                raise invalid(f"Failed to convert version: {match['version']} to numeric.")
            spec.version.value = int(number or "0")
        if match["label"]:
            spec.version_label = urllib.parse.unquote(match["label"])
        return cls(spec, (match["verb"] or "").lower())


class _Models(BaseRoute):
    """Everything under /v1/, and 404 for the rest."""

    def __init__(self, prediction: Any, management: Any, repository: Any, settings: Settings):
        self._prediction = prediction
        self._management = management
        self._repository = repository
        self._settings = settings

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL if scope["type"] == "http" else Match.NONE), {}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = scope["raw_path"].decode("latin-1")
        if not path.lower().startswith("/v1/"):
            response = Response(status_code=404)
        elif request.method == "OPTIONS":
            response = http_gate.preflight(request)
        else:
            response = await self._respond(request, path)
        await response(scope, receive, send)

    async def _respond(self, request: Request, path: str) -> Response:
        started = time.perf_counter()
        target, code = None, grpc.StatusCode.CANCELLED
        try:
            target = _Target.parse(request.method, path, request.scope["query_string"].decode("latin-1"))
            body = await request.body()
            content = await self._unless_in_vain(self._answer(target, path, body), request.receive)
            code = grpc.StatusCode.OK
            return Response(content, media_type="application/json")
        except Exception as error:
            if not isinstance(error, StatusError):
                logging.exception("%s %s failed", request.method, path)
                error = _internal(request.method, path)
            code = error.code
            return error_response(error)
        finally:
            method = target.verb if target and request.method == "POST" else ""
            self._settings.observe(method, target, code, time.perf_counter() - started)

    async def _unless_in_vain(
        self, answer: Coroutine[Any, Any, str | bytes], receive: Receive
    ) -> str | bytes:
        """The answer, provided that it comes in time and somebody still waits for it."""
        timeout_seconds = self._settings.timeout_seconds
        answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(receive())
        try:
            await asyncio.wait(
                {answering, leaving},
                timeout=timeout_seconds if timeout_seconds > 0 else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answering.done():
                return answering.result()
            if leaving.done():
                raise StatusError(grpc.StatusCode.CANCELLED, "The caller has gone")
            message = f"The request took longer than {timeout_seconds:g} s"
            raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, message)
        finally:
            answering.cancel()
            leaving.cancel()

    async def _answer(self, target: _Target, path: str, body: bytes) -> str | bytes:
        spec = target.model_spec
        if target.verb == "predict":
            return await self._predict(spec, body)
        if target.verb == "classify":
            classify = self._prediction.Classify
            classification = classification_pb2.ClassificationRequest(model_spec=spec)
            return await _examine(classification, body, classify, json_results.classifications)
        if target.verb == "regress":
            regression = regression_pb2.RegressionRequest(model_spec=spec)
            return await _examine(regression, body, self._prediction.Regress, json_results.regressions)
        if path.lower() == "/v1/models":
            return json_results.models((name, self._status(name)) for name in self._repository.model_names())
        if not spec.name:
            raise invalid("Missing model name in request.")
        if target.verb == "metadata":
            request = get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=spec, metadata_field=["signature_def"]
            )
            metadata = self._prediction.GetModelMetadata(request)
            return json_results.metadata(await metadata if inspect.isawaitable(metadata) else metadata)
        status = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return json_results.status(self._management.GetModelStatus(status))

    def _status(self, name: str) -> get_model_status_pb2.GetModelStatusResponse:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=model_pb2.ModelSpec(name=name))
        try:
            return self._management.GetModelStatus(request)
        except StatusError:  # there is no version yet
            return get_model_status_pb2.GetModelStatusResponse()

    async def _predict(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        document = await _converted(len(body), json_text.parse, body)
        spec.signature_name = json_requests.signature_name(document)
        signature = self._prediction.signature(spec)
        request, in_rows = await _converted(len(body), json_requests.predict_request, document, signature)
        request.model_spec.CopyFrom(spec)
        response = await self._prediction.Predict(request)
        convert = json_results.predictions if in_rows else json_results.outputs
        return await _converted(response.ByteSize(), _encoded, convert, response.outputs)


async def _examine(
    request: Any, body: bytes, call: Callable[[Any], Any], convert: Callable[[Any], str]
) -> bytes:
    document = await _converted(len(body), json_text.parse, body)
    request.model_spec.signature_name = json_requests.signature_name(document)
    await _converted(len(body), json_requests.fill_examples, document, request)
    response = await call(request)
    return await _converted(response.ByteSize(), _encoded, convert, response.result)


def _encoded(convert: Callable[[Any], str], value: Any) -> bytes:
    return convert(value).encode()


async def _converted(size: int, convert: Callable[..., _T], *arguments: Any) -> _T:
    """What a function makes of something of that size, without holding up others."""
    if size > _THREAD_BYTES:
        return await asyncio.to_thread(convert, *arguments)
    return convert(*arguments)
