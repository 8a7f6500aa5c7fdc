"""Texts that are being written, over HTTP: server-sent events, token by token.

    POST /v1/models/M[/versions/N|/labels/L]:generate
    {"prompt": "Once", "max_new_tokens": 20, "temperature": 0.8, "top_k": 0, "top_p": 0.9, "seed": 1,
     "tokens_per_message": 1}

All but the prompt may be left out. The answer is a stream of events
`data: {"text": ..., "token_ids": [...], "log_probs": [...], "done": ...}`, log probabilities in nats, and at
the end `data: [DONE]`. A character whose bytes are of several tokens comes with the last of them. An error
after the first event is an event `data: {"error": ...}`.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import numpy as np
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from serving import json_text
from serving.generation import Generator
from serving.messages import model_pb2
from serving.rpc import StatusError, invalid

_SETTINGS: Mapping[str, tuple[type, Any]] = {
    "max_new_tokens": (int, np.int32),
    "temperature": (float, np.float32),
    "top_k": (int, np.int32),
    "top_p": (float, np.float32),
}
_LARGEST_INT32 = 2**31 - 1
SendEvent = Callable[[Any], Awaitable[None]]


def routes(generator: Generator) -> list[BaseRoute]:
    """The endpoints of `:generate`."""

    async def generate(request: Request) -> EventStream:
        spec = model_pb2.ModelSpec(name=request.path_params["name"])
        if "version" in request.path_params:
            spec.version.value = min(request.path_params["version"], 2**63 - 1)
        if "label" in request.path_params:
            spec.version_label = request.path_params["label"]
        body = json_object(await request.body())
        count = body.pop("tokens_per_message", 1)
        if type(count) is not int or count < 1:
            raise invalid(f"tokens_per_message is {json_text.shown(count)}, and has to be an integer above 0")
        inputs = settings(body)
        return EventStream(generator, lambda send: _events(generator, spec, inputs, count, send))

    paths = ("", "/versions/{version:int}", "/labels/{label}")
    return [Route(f"/v1/models/{{name}}{path}:generate", generate, methods=["POST"]) for path in paths]


async def _events(
    generator: Generator,
    spec: model_pb2.ModelSpec,
    inputs: Mapping[str, np.ndarray],
    count: int,
    send: SendEvent,
) -> None:
    text = TextDecoder()
    async with generator.stream(spec, inputs) as (_, stream):
        while tokens := await stream.take(count):
            done = tokens[-1].done
            await send(
                {
                    "text": text.decode(b"".join(token.text for token in tokens), done or stream.is_over),
                    "token_ids": [token.id for token in tokens],
                    "log_probs": [finite(token.log_prob) for token in tokens],
                    "done": done,
                }
            )


class TextDecoder:
    """The text of tokens that come one by one, whose bytes need not be whole characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def decode(self, text: bytes, is_last: bool) -> str:
        return self._decoder.decode(text, is_last)


def finite(value: float) -> float | None:
    """JSON has no number for infinity, as the log probability of the impossible is."""
    return value if math.isfinite(value) else None


def json_object(body: bytes) -> dict[str, Any]:
    """What a request says. Raises StatusError where it is no JSON object."""
    value = json_text.parse(body).value
    if not isinstance(value, dict):
        raise invalid(f"the request is a JSON {json_text.type_name(value)}, and has to be an Object")
    return value


def settings(body: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Inputs of the signature `generate`, of one row, from JSON's names and values.

    Raises:
        StatusError: one is unknown, or of another kind.
    """
    inputs = {}
    for name, value in body.items():
        if name == "prompt":
            if not isinstance(value, str):
                raise invalid(f"prompt is a JSON {json_text.type_name(value)}, and has to be a String")
            inputs[name] = np.array([value.encode("utf-8", "surrogateescape")], np.object_)
        elif name == "seed":
            inputs[name] = _seed(value)
        elif name in _SETTINGS:
            inputs[name] = _number(name, value)
        else:
            known = ", ".join(["prompt", *_SETTINGS, "seed", "tokens_per_message"])
            raise invalid(f"{name!r} is no setting; there are {known}")
    return inputs


def _number(name: str, value: Any) -> np.ndarray:
    kind, dtype = _SETTINGS[name]
    is_whole = type(value) is int and abs(value) <= _LARGEST_INT32
    if not is_whole and not (kind is float and isinstance(value, float) and math.isfinite(value)):
        what = "an integer of 32 bits" if kind is int else "a finite number"
        raise invalid(f"{name} is {json_text.shown(value)}, and has to be {what}")
    return np.array([value], dtype)


def _seed(value: Any) -> np.ndarray:
    pair = value if isinstance(value, list) else [value, 0]
    if len(pair) != 2 or not all(type(part) is int and abs(part) <= _LARGEST_INT32 for part in pair):
        raise invalid("seed has to be an integer, or a pair of them, of 32 bits")
    return np.array([pair], np.int32)


class EventStream:
    """An ASGI response: what `write` sends becomes events, until its end or until the caller goes away."""

    def __init__(self, generator: Generator, write: Callable[[SendEvent], Awaitable[None]]):
        self._max_seconds, self._write = generator.limits.max_seconds, write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_event(content: Any) -> None:
            nonlocal started
            if not started:
                started = True
                headers = [
                    (b"content-type", b"text/event-stream; charset=utf-8"),
                    (b"cache-control", b"no-cache"),
                ]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            data = content if isinstance(content, str) else json.dumps(content)
            body = f"data: {data}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})

        try:
            if not await self._unless_gone(send_event, receive):
                return
        except StatusError as error:
            if not started:
                raise
            await send_event({"error": error.message})
        await send_event("[DONE]")
        await send({"type": "http.response.body", "body": b""})

    async def _unless_gone(self, send_event: SendEvent, receive: Receive) -> bool:
        """Write to the end; False if the caller has gone before."""
        writing, leaving = (asyncio.ensure_future(each) for each in (self._write(send_event), _left(receive)))
        try:
            await asyncio.wait(
                {writing, leaving}, timeout=self._max_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if writing.done():
                writing.result()
            elif not leaving.done():
                message = f"a stream lasts at most {self._max_seconds:g} s"
                raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, message)
            return writing.done()
        finally:
            leaving.cancel()
            writing.cancel()
            await asyncio.wait({writing})  # its slot is free then


async def _left(receive: Receive) -> None:
    """Returns when the caller has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
