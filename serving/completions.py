"""POST /v1/completions, as clients of OpenAI's API send it, for language models that are served.

    {"model": M, "prompt": "Once", "max_tokens": 16, "temperature": 1, "top_p": 1, "n": 1, "seed": 1,
     "stop": ["."], "logprobs": 0, "stream": false}

All but the model may be left out, and `prompt` may be a list; of `logprobs`, only those of the chosen tokens
are known. Errors have OpenAI's form, {"error": {"message", "type", "code"}}. What is asked for and not
offered is an error, but for `user`, which is ignored.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import grpc
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from serving import json_text
from serving.event_streams import EventStream, SendEvent, TextDecoder, finite, json_object, settings
from serving.generation import Generator
from serving.http_gate import http_status
from serving.messages import model_pb2
from serving.rpc import StatusError, invalid
from serving.streaming import Token

MAX_CHOICES = 64
_MAX_STOPS = 4
_MAX_TOKENS = 16  # where a request does not say
_SETTINGS = {"temperature", "top_p"}
_NEUTRAL: Mapping[str, Sequence[Any]] = {  # what may be asked for as long as it changes nothing
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "suffix": ("",),
    "stream_options": ({},),
}


class _Asked(NamedTuple):
    """A request, taken apart."""

    spec: model_pb2.ModelSpec
    inputs: Sequence[Mapping[str, Any]]  # of each choice
    stops: Sequence[str]
    has_log_probs: bool
    is_stream: bool


class _Piece(NamedTuple):
    """Some more of a choice."""

    text: str
    tokens: Sequence[Token]
    finish_reason: str | None


def routes(generator: Generator) -> list[BaseRoute]:
    """The endpoint."""

    async def complete(request: Request) -> Any:
        try:
            asked = _asked(json_object(await request.body()))
            head: dict[str, Any] = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion"}
            head |= {"created": int(time.time()), "model": asked.spec.name}
            if asked.is_stream:
                return _Stream(generator, asked, head)
            return _json({**head, **await _whole(generator, asked)})
        except StatusError as error:
            return _error(error)

    return [Route("/v1/completions", complete, methods=["POST"])]


class _Stream:
    """The ASGI response of a request with `stream`; what goes wrong at its start is an error."""

    def __init__(self, generator: Generator, asked: _Asked, head: Mapping[str, Any]):
        self._generator, self._asked, self._head = generator, asked, head

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await EventStream(self._generator, self._write)(scope, receive, send)
        except StatusError as error:
            await _error(error)(scope, receive, send)

    async def _write(self, send: SendEvent) -> None:
        async def choice(index: int) -> None:
            async for piece in _pieces(self._generator, self._asked, index):
                await send({**self._head, "choices": [_choice(self._asked, index, piece)]})

        await asyncio.gather(*map(choice, range(len(self._asked.inputs))))


async def _whole(generator: Generator, asked: _Asked) -> Mapping[str, Any]:
    async def choice(index: int) -> _Piece:
        pieces = [piece async for piece in _pieces(generator, asked, index)]
        text = "".join(piece.text for piece in pieces)
        tokens = list(itertools.chain.from_iterable(piece.tokens for piece in pieces))
        return _Piece(text, tokens, pieces[-1].finish_reason)

    pieces = await asyncio.gather(*map(choice, range(len(asked.inputs))))
    return {
        "choices": [_choice(asked, index, piece) for index, piece in enumerate(pieces)],
        "usage": {"completion_tokens": sum(len(piece.tokens) for piece in pieces)},
    }


async def _pieces(generator: Generator, asked: _Asked, index: int) -> Any:
    """One choice, up to the first stop string, the text's end, or as many tokens as were asked for."""
    decoder, pending = TextDecoder(), ""
    async with generator.stream(asked.spec, asked.inputs[index]) as (_, stream):
        while tokens := await stream.take(1):
            over = stream.is_over
            pending += decoder.decode(b"".join(token.text for token in tokens), over)
            found = [place for stop in asked.stops if (place := pending.find(stop)) >= 0]
            if found:
                yield _Piece(pending[: min(found)], tokens, "stop")
                return
            kept = 0 if over else _beginning(pending, asked.stops)
            said, pending = pending[: len(pending) - kept], pending[len(pending) - kept :]
            reason = "stop" if tokens[-1].done else "length"
            yield _Piece(said, tokens, reason if over else None)
            if over:
                return
    yield _Piece("", [], "length")  # no token was asked for


def _beginning(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of a stop string."""
    return max(
        (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0
    )


def _choice(asked: _Asked, index: int, piece: _Piece) -> Mapping[str, Any]:
    log_probs = None
    if asked.has_log_probs:
        log_probs = {
            "tokens": [token.text.decode("utf-8", "replace") for token in piece.tokens],
            "token_logprobs": [finite(token.log_prob) for token in piece.tokens],
            "top_logprobs": None,
        }
    return {"index": index, "text": piece.text, "logprobs": log_probs, "finish_reason": piece.finish_reason}


def _asked(body: dict[str, Any]) -> _Asked:
    model = body.pop("model", None)
    if not isinstance(model, str):
        raise invalid("model is missing, the name of a language model that is served")
    prompts = body.pop("prompt", "")
    prompts = prompts if isinstance(prompts, list) else [prompts]
    choices = _whole_number(body, "n", 1, 1, MAX_CHOICES)
    if not 1 <= len(prompts) * choices <= MAX_CHOICES:
        raise invalid(
            f"prompts times n is {len(prompts) * choices}, and has to be between 1 and {MAX_CHOICES}"
        )
    common: dict[str, Any] = {"max_new_tokens": _whole_number(body, "max_tokens", _MAX_TOKENS, 0, 2**31 - 1)}
    for name in _SETTINGS:
        if (value := body.pop(name, None)) is not None:
            common[name] = value
    seed = body.pop("seed", None)
    inputs = []
    for index, prompt in enumerate(prompt for prompt in prompts for _ in range(choices)):
        # Choices with one seed are to differ; the second half of a stream's seed counts its tokens.
        own = {} if seed is None else {"seed": [seed, index << 20]}
        inputs.append(settings({"prompt": prompt, **common, **own}))
    log_probs = body.pop("logprobs", None)
    asked = _Asked(
        model_pb2.ModelSpec(name=model.encode("utf-8", "replace")),  # what is no Unicode names no model
        inputs,
        _stops(body.pop("stop", None)),
        log_probs is not None and log_probs is not False,
        bool(body.pop("stream", False)),
    )
    _check_rest(body)
    return asked


def _whole_number(body: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = body.pop(name, None)
    value = default if value is None else value
    if type(value) is not int or not least <= value <= most:
        raise invalid(f"{name} is {json_text.shown(value)}, and has to be an integer of {least} to {most}")
    return value


def _stops(value: Any) -> Sequence[str]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise invalid("stop has to be a string, or a list of them, none of them empty")
    if len(stops) > _MAX_STOPS:
        raise invalid(f"stop has {len(stops)} strings, and may have {_MAX_STOPS}")
    return stops


def _check_rest(body: dict[str, Any]) -> None:
    for name, value in body.items():
        if name != "user" and value is not None and value not in _NEUTRAL.get(name, ()):
            raise invalid(f"{name} is not offered")


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")


def _error(error: StatusError) -> Response:
    kind = "invalid_request_error" if error.code is grpc.StatusCode.INVALID_ARGUMENT else "server_error"
    content = {"message": error.message, "type": kind, "code": error.code.name.lower()}
    return _json({"error": content}, http_status(error.code))
