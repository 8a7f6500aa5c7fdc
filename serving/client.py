"""Asks a model server (zoo-serve, or the stock TensorFlow Serving) over gRPC.

    with Client("127.0.0.1:8500", model="docs") as client:
        print(client.generate("The object ", max_new_tokens=60).text)
        for token in client.stream("The object "):
            ...

    async with AsyncClient("127.0.0.1:8500", model="docs") as client:
        print((await client.score("The object is immutable.")).perplexity)

Both clients have the same methods. They raise ServerError when there is no answer, or none in time; a server
that is UNAVAILABLE is asked again within that time. Imports no TensorFlow.
"""

from __future__ import annotations

import inspect
import time
import typing
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

import grpc
import grpc.aio

from serving import generation_calls, management_calls, search_calls, task_calls
from serving.calls import Call, model_spec
from serving.client_results import Token
from serving.connection import Connection, ServerError, Tls
from serving.generation_calls import Streaming, advance
from serving.model_list import models

__all__ = ["AsyncClient", "Client", "ServerError", "Tls", "models"]

P = ParamSpec("P")
T = TypeVar("T")


class _Client:
    """What both clients are made of: a channel, and the model that is asked."""

    _grpc: ClassVar[Any]  # the module that makes channels

    def __init__(
        self,
        server: str,
        model: str = "default",
        *,
        version: int | None = None,
        version_label: str = "",
        timeout_s: float = 60.0,
        retries: int = 3,
        bearer_token: str = "",
        tls: Tls | None = None,
    ):
        """`server` is HOST:PORT or unix:/PATH. An answer, or a stream, may take `timeout_s` seconds with all
        `retries`.

        Asked is the newest version of the model, or the one of that number or with that label.
        """
        self.server = server
        self.model = model
        self.spec = model_spec(model, version, version_label)
        self._connection = Connection(server, timeout_s, retries, bearer_token, tls)
        self._channel = self._connection.channel(self._grpc)
        self._methods: dict[Any, Any] = {}

    def _begin(self, call: Call[Any], timeout_s: float | None = None) -> Any:
        """gRPC's own object of a call; of a synchronous one that does not stream, the response."""
        method = self._methods.get(call.rpc)
        if method is None:
            make = self._channel.unary_stream if call.rpc.streams else self._channel.unary_unary
            method = make(call.rpc.path, response_deserializer=call.rpc.response.FromString)
            self._methods[call.rpc] = method
        if timeout_s is None:
            timeout_s = self._connection.timeout_s
        return method(call.request.SerializeToString(), timeout=timeout_s, metadata=self._connection.metadata)

    def _read(self, call: Call[T], response: Any) -> T:
        try:
            return call.read(response)
        except ValueError as error:
            raise self._connection.misfit(self.model, error) from error

    def _error(self, error: grpc.RpcError) -> ServerError:
        return self._connection.error(self.model, error)


def _described(method: Any, build: Callable[..., Any], returns: Any) -> Any:
    """Gives a method the name, documentation and parameters of the function that builds its calls."""
    signature = inspect.signature(build)
    _, *parameters = signature.parameters.values()
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__signature__ = signature.replace(parameters=[own, *parameters], return_annotation=returns)
    method.__name__, method.__doc__ = build.__name__, build.__doc__
    return method


def _answer_type(build: Callable[..., Any]) -> Any:
    (answer,) = typing.get_args(typing.get_type_hints(build)["return"])
    return answer


def _asks(build: Callable[Concatenate[Any, P], Call[T]]) -> Callable[Concatenate[Client, P], T]:
    def ask(self: Client, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.ask(build(self.spec, *args, **kwargs))

    return _described(ask, build, _answer_type(build))


def _streams(
    build: Callable[Concatenate[Any, P], Streaming],
) -> Callable[Concatenate[Client, P], Generator[Token, None, None]]:
    def stream(self: Client, *args: P.args, **kwargs: P.kwargs) -> Generator[Token, None, None]:
        return self.receive(build(self.spec, *args, **kwargs))

    return _described(stream, build, Generator[Token, None, None])


class Client(_Client):
    """Asks, from any number of threads."""

    _grpc = grpc

    predict = _asks(task_calls.predict)
    classify_examples = _asks(task_calls.classify_examples)
    regress = _asks(task_calls.regress)
    multi_inference = _asks(task_calls.multi_inference)
    generate = _asks(generation_calls.generate)
    generate_details = _asks(generation_calls.generate_details)
    stream = _streams(generation_calls.stream)
    beam = _asks(search_calls.beam)
    contrastive = _asks(search_calls.contrastive)
    score = _asks(task_calls.score)
    score_tokens = _asks(task_calls.score_tokens)
    classify = _asks(task_calls.classify)
    tag = _asks(task_calls.tag)
    translate = _asks(task_calls.translate)
    answer = _asks(task_calls.answer)
    embed = _asks(task_calls.embed)
    status = _asks(management_calls.status)
    metadata = _asks(management_calls.metadata)
    reload = _asks(management_calls.reload)
    is_serving = _asks(management_calls.is_serving)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, and what is under way."""
        self._channel.close()

    def ask(self, call: Call[T], timeout_s: float | None = None) -> T:
        """Makes any call."""
        try:
            response = self._begin(call, timeout_s)
        except grpc.RpcError as error:
            raise self._error(error) from error
        return self._read(call, response)

    def receive(self, streaming: Streaming) -> Generator[Token, None, None]:
        """The tokens of a stream, as they come."""
        deadline = time.monotonic() + self._connection.timeout_s
        responses, begun = self._begin(streaming), False
        try:
            for response in responses:
                begun = True
                yield from self._read(streaming, response)
            return
        except grpc.RpcError as error:
            if begun or error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise self._error(error) from error
        finally:
            responses.cancel()
        steps, answer = streaming.steps(), None
        while (step := advance(steps, answer)) is not None:
            answer = None
            if isinstance(step, Token):
                yield step
            else:
                answer = self.ask(step, deadline - time.monotonic())


def _awaits(
    build: Callable[Concatenate[Any, P], Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    async def ask(self: AsyncClient, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.ask(build(self.spec, *args, **kwargs))

    return _described(ask, build, _answer_type(build))


def _streams_asynchronously(
    build: Callable[Concatenate[Any, P], Streaming],
) -> Callable[Concatenate[AsyncClient, P], AsyncGenerator[Token, None]]:
    def stream(self: AsyncClient, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Token, None]:
        return self.receive(build(self.spec, *args, **kwargs))

    return _described(stream, build, AsyncGenerator[Token, None])


class AsyncClient(_Client):
    """Asks, from the event loop that it was made in."""

    _grpc = grpc.aio

    predict = _awaits(task_calls.predict)
    classify_examples = _awaits(task_calls.classify_examples)
    regress = _awaits(task_calls.regress)
    multi_inference = _awaits(task_calls.multi_inference)
    generate = _awaits(generation_calls.generate)
    generate_details = _awaits(generation_calls.generate_details)
    stream = _streams_asynchronously(generation_calls.stream)
    beam = _awaits(search_calls.beam)
    contrastive = _awaits(search_calls.contrastive)
    score = _awaits(task_calls.score)
    score_tokens = _awaits(task_calls.score_tokens)
    classify = _awaits(task_calls.classify)
    tag = _awaits(task_calls.tag)
    translate = _awaits(task_calls.translate)
    answer = _awaits(task_calls.answer)
    embed = _awaits(task_calls.embed)
    status = _awaits(management_calls.status)
    metadata = _awaits(management_calls.metadata)
    reload = _awaits(management_calls.reload)
    is_serving = _awaits(management_calls.is_serving)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection, and what is under way."""
        await self._channel.close()

    async def ask(self, call: Call[T], timeout_s: float | None = None) -> T:
        """Makes any call."""
        try:
            response = await self._begin(call, timeout_s)
        except grpc.RpcError as error:
            raise self._error(error) from error
        return self._read(call, response)

    async def receive(self, streaming: Streaming) -> AsyncGenerator[Token, None]:
        """The tokens of a stream, as they come."""
        deadline = time.monotonic() + self._connection.timeout_s
        responses, begun = self._begin(streaming), False
        try:
            async for response in responses:
                begun = True
                for token in self._read(streaming, response):
                    yield token
            return
        except grpc.RpcError as error:
            if begun or error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise self._error(error) from error
        finally:
            responses.cancel()
        steps, answer = streaming.steps(), None
        while (step := advance(steps, answer)) is not None:
            answer = None
            if isinstance(step, Token):
                yield step
            else:
                answer = await self.ask(step, deadline - time.monotonic())
