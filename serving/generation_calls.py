"""What language models can be asked: to continue a text, at once or token by token."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from serving.calls import (
    PREDICT,
    Call,
    Rpc,
    bytes_of,
    model_spec,
    number_of,
    numbers_of,
    predict_request,
    row,
    text_of,
    version_of,
)
from serving.client_results import Generation, GenerationDetails, Metadata, Token
from serving.management_calls import metadata
from serving.messages import predict_pb2, tensor_pb2
from serving.token_details import tokens_of

_GENERATE = Rpc("/rnn_zoo.serving.GenerationService/Generate", predict_pb2.PredictResponse, streams=True)
_INTEGERS = ("max_new_tokens", "top_k", "beam_width")
_DEFAULT_NEW_TOKENS = 100

# Calls to be made, whose answers are sent in, and in between the tokens.
Steps: TypeAlias = Generator[Call[Any] | Token, Any, None]


@dataclasses.dataclass(frozen=True)
class Streaming(Call[Sequence[Token]]):
    """A text token by token; where the server has no such RPC, it can be had in steps."""

    steps: Callable[[], Steps]


def advance(steps: Steps, answer: Any) -> Call[Any] | Token | None:
    """The next call or token, given the last call's answer; None at the end."""
    try:
        return steps.send(answer)
    except StopIteration:
        return None


def generate(
    spec: Any,
    prompt: str,
    *,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    min_p: float | None = None,
    typical_p: float | None = None,
    repetition_penalty: float | None = None,
    stop: Sequence[str] = (),
    bad_words: Sequence[str] = (),
) -> Call[Generation]:
    """Continues the prompt. What is not given is as the model has it by default.

    `temperature` 0 takes the likeliest token each time, 1 samples as trained, among the `top_k` likeliest, or
    the likeliest that have the share `top_p`, or those with the share `min_p` of the likeliest one's
    probability, or the most typical that have the share `typical_p`. The same `seed` draws the same text
    again. A `repetition_penalty` above 1 makes tokens less likely that were there before. The text ends
    before the first of `stop`, and has none of the `bad_words`. Earlier exports lack some of these inputs.
    """
    options = settings(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical_p,
        repetition_penalty=repetition_penalty,
    )
    inputs = {"prompt": row(prompt), **options, **_seed(seed), **_texts(stop=stop, bad_words=bad_words)}
    return Call(PREDICT, predict_request(spec, "generate", inputs), generation_of)


def generate_details(spec: Any, prompt: str, **options: Any) -> Call[GenerationDetails]:
    """Continues the prompt as `generate` does, whose options these are; with each token's log probability and
    alternatives.

    They are the model's own, before anything that was asked for has changed them.
    """
    request = generate(spec, prompt, **options).request
    request.model_spec.signature_name = "generate_details"
    return Call(PREDICT, request, _generation_details)


def _generation_details(response: Any) -> GenerationDetails:
    text, num_tokens, log_prob, version = generation_of(response)
    return GenerationDetails(text, num_tokens, log_prob, tokens_of(response), version)


def generation_of(response: Any) -> Generation:
    """What `generate`, or a signature with its outputs, has answered to one prompt."""
    num_tokens, log_prob = int(number_of(response, "num_tokens")), float(number_of(response, "log_prob"))
    return Generation(text_of(response, "text"), num_tokens, log_prob, version_of(response))


def stream(
    spec: Any,
    prompt: str,
    *,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    min_p: float | None = None,
    typical_p: float | None = None,
    tokens_per_message: int | None = None,
) -> Streaming:
    """Continues the prompt token by token; with more `tokens_per_message` so many at once, for less effort.

    The same `seed` draws the same tokens again, but others than those of `generate`. A server without the
    service rnn_zoo.serving.GenerationService is driven from here, which takes a call for each token.
    """
    options = settings(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p)
    inputs = {"prompt": row(prompt), **options, **settings(max_new_tokens=max_new_tokens), **_seed(seed)}
    if tokens_per_message is not None:
        inputs["tokens_per_message"] = row(tokens_per_message, np.int32)
    request = predict_request(spec, "generate", inputs)
    return Streaming(_GENERATE, request, _tokens, lambda: _steps(spec, prompt, max_new_tokens, options, seed))


def _tokens(response: Any) -> list[Token]:
    columns = (
        bytes_of(response, "token"),
        numbers_of(response, "token_id").tolist(),
        numbers_of(response, "log_prob").tolist(),
        numbers_of(response, "done").tolist(),
    )
    version = version_of(response)
    return [Token(*values, version) for values in zip(*columns, strict=True)]


def _steps(
    spec: Any,
    prompt: str,
    max_new_tokens: int | None,
    options: Mapping[str, np.ndarray],
    seed: int | None,
) -> Steps:
    """The state goes to the server and comes back with each step.

    All steps go to the version that made the first state, since no other could read it.
    """
    if max_new_tokens is None:
        max_new_tokens = _default_new_tokens((yield metadata(spec)))
    state, version = yield Call(PREDICT, predict_request(spec, "start", {"prompt": row(prompt)}), _state)
    pinned = model_spec(spec.name, version)
    for index in range(max_new_tokens):
        request = predict_request(pinned, "step", {**options, **_seed(seed, index)})
        request.inputs["state"].CopyFrom(state)
        token, state = yield Call(PREDICT, request, _step)
        yield token
        if token.done:
            return


def _default_new_tokens(model: Metadata) -> int:
    signature = model.signatures.get("generate")
    limit = None if signature is None else signature.inputs.get("max_new_tokens")
    return _DEFAULT_NEW_TOKENS if limit is None or limit.default is None else int(limit.default[0])


def _state(response: Any) -> tuple[tensor_pb2.TensorProto, int]:
    if "state" not in response.outputs:
        raise ValueError("it gives no output 'state'")
    return response.outputs["state"], version_of(response)


def _step(response: Any) -> tuple[Token, tensor_pb2.TensorProto]:
    (token,) = _tokens(response)
    return token, _state(response)[0]


def settings(**options: float | None) -> dict[str, np.ndarray]:
    """Those that were given: the model has defaults of its own for the rest."""
    return {
        alias: row(value, np.int32 if alias in _INTEGERS else np.float32)
        for alias, value in options.items()
        if value is not None
    }


def _texts(**options: Sequence[str]) -> dict[str, np.ndarray]:
    """Those that were given, each as one row of strings; a text alone is a row of one."""
    return {
        alias: row([texts] if isinstance(texts, str) else list(texts))
        for alias, texts in options.items()
        if texts
    }


def _seed(seed: int | None, index: int = 0) -> dict[str, np.ndarray]:
    return {} if seed is None else {"seed": row((seed, index), np.int32)}
