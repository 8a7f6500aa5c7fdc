"""How every RPC is answered: read the request, call the method, report what went wrong.

The stock stubs would report a request that does not parse as INTERNAL and an exception as UNKNOWN, with
its text. Here what is the caller's fault is said to be so, and the messages have the stock server's form.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import grpc
from absl import logging
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from serving.messages import model_pb2

_MAX_MESSAGE_BYTES = 1024
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class StatusError(Exception):
    """An error with a code of the protocol, meant for the caller."""

    def __init__(self, code: grpc.StatusCode | int, message: str):
        super().__init__(message)
        self.code = _CODES.get(code, grpc.StatusCode.UNKNOWN) if isinstance(code, int) else code
        self.message = message


def invalid(message: str) -> StatusError:
    """INVALID_ARGUMENT, by far the most frequent."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def truncated(message: str) -> str:
    """A message cut as the stock server cuts it (model_servers/grpc_status_util.cc)."""
    encoded = message.encode("utf-8", "replace")
    if len(encoded) <= _MAX_MESSAGE_BYTES:
        return encoded.decode()
    return encoded[:_MAX_MESSAGE_BYTES].decode("utf-8", "ignore") + "...TRUNCATED"


def model_spec(request: Any) -> model_pb2.ModelSpec:
    """The request's model_spec; it may lack a name, but it has to be there."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec


# Learns how each call ended: method, request (None if it could not be read), code, seconds.
Observer: TypeAlias = Callable[[str, Any, grpc.StatusCode, float], None]


def unobserved(method: str, request: Any, code: grpc.StatusCode, seconds: float) -> None:
    """The observer that does not care."""


def handler(
    service: Any, servicer: object, observe: Observer = unobserved, max_stream_seconds: float | None = None
) -> grpc.GenericRpcHandler:
    """Serves those methods of a service (its descriptor) that `servicer` has; the rest is UNIMPLEMENTED.

    A method takes the request and gives the response, at once or awaitable, or if it is server-streaming,
    responses as an asynchronous generator, which may take so many seconds. Raised are StatusErrors.
    """
    methods = {}
    for method in service.methods:
        if call := getattr(servicer, method.name, None):
            answers = _Answers(method, call, observe, max_stream_seconds)
            methods[method.name] = (
                grpc.unary_stream_rpc_method_handler(answers.stream)
                if method.server_streaming
                else grpc.unary_unary_rpc_method_handler(answers.unary)
            )
    return grpc.method_handlers_generic_handler(service.full_name, methods)


class _Answers:
    """One method, from the bytes of a request to those of its responses."""

    def __init__(
        self, method: Any, call: Callable[[Any], Any], observe: Observer, max_stream_seconds: float | None
    ):
        self._method, self._call, self._observe = method, call, observe
        self._max_stream_seconds = max_stream_seconds
        self._request_class = GetMessageClass(method.input_type)

    async def unary(self, body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        async def respond(request: Any) -> bytes:
            response = self._call(request)
            if inspect.isawaitable(response):
                response = await response
            return response.SerializeToString()

        return await self._observed(body, context, respond)

    async def stream(self, body: bytes, context: grpc.aio.ServicerContext) -> None:
        async def respond(request: Any) -> None:
            async with contextlib.aclosing(self._call(request)) as responses:  # closed at once, not some time
                async for response in responses:
                    await context.write(response.SerializeToString())

        async def respond_in_time(request: Any) -> None:
            try:
                with anyio.fail_after(self._max_stream_seconds):  # a client that does not read, too
                    await respond(request)
            except TimeoutError:
                message = f"a stream lasts at most {self._max_stream_seconds:g} s"
                raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, message) from None

        await self._observed(body, context, respond_in_time)

    async def _observed(
        self, body: bytes, context: grpc.aio.ServicerContext, respond: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        started, request, code, message = time.perf_counter(), None, grpc.StatusCode.CANCELLED, ""
        try:
            request = self._request_class.FromString(body)
            response = await respond(request)
            code = grpc.StatusCode.OK
            return response
        except StatusError as error:
            code, message = error.code, error.message
        except DecodeError:
            code, message = grpc.StatusCode.INVALID_ARGUMENT, f"Not a {self._method.input_type.full_name}"
        except Exception:
            logging.exception("%s failed", self._method.full_name)
            code = grpc.StatusCode.INTERNAL
            message = f"{self._method.name} failed; the server's log says why"
        finally:
            self._observe(self._method.name, request, code, time.perf_counter() - started)
        await context.abort(code, truncated(message))
