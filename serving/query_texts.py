"""The commands of zoo-query that ask a model about a text."""

from __future__ import annotations

import codecs
import math
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from serving import alignment, generation_calls, query_flags, task_calls
from serving.calls import Call
from serving.client import Client
from serving.client_results import (
    Answer,
    Classification,
    Embedding,
    Generation,
    Score,
    Tags,
    Translation,
)
from serving.generation_calls import Streaming
from serving.query_flags import given, required
from serving.query_output import finish, show


class Question(NamedTuple):
    """What a command asks, and how people see the answer."""

    call: Callable[[Any], Call[Any]]
    shown: Callable[[Any], str]
    repeated: str = "text"  # the flag whose value stands with the answer in the line of JSON


def ask(client: Client, question: Question) -> None:
    """Asks, and prints the answer."""
    call = question.call(client.spec)
    if isinstance(call, Streaming):
        result = _shown_stream(client, call)
    else:
        answer = client.ask(call)
        result = answer._asdict()
        show(question.shown(answer))
    version = result.pop("version")
    asked = {"model": client.model} | ({} if version is None else {"version": version})
    finish({**asked, question.repeated: required(question.repeated), **result})


def _shown_stream(client: Client, call: Streaming) -> dict[str, Any]:
    """Shows a text as it comes; gives what would have been the result of asking for it at once."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces, log_probs, version = [], [], None
    show(required("prompt"), end="")
    try:
        for token in client.receive(call):
            pieces.append(decoder.decode(token.text))
            log_probs.append(token.log_prob)
            version = token.version
            show(pieces[-1], end="")
    finally:  # what follows, a result or an error, begins a new line
        pieces.append(decoder.decode(b"", final=True))
        show(pieces[-1])
    return {
        "text": "".join(pieces),
        "num_tokens": len(log_probs),
        "log_prob": math.fsum(log_probs),
        "version": version,
    }


def _generate(spec: Any) -> Call[Any]:
    prompt, options = required("prompt"), query_flags.sampling()
    if flags.FLAGS.stream:
        return generation_calls.stream(spec, prompt, **options, **given("tokens_per_message"))
    return generation_calls.generate(spec, prompt, **options)


def _generation(result: Generation) -> str:
    return required("prompt") + result.text


def _score(result: Score) -> str:
    return (
        f"log probability {result.log_prob:.4f} nats, {result.num_tokens} tokens, "
        f"perplexity {result.perplexity:.4f}"
    )


def _classification(result: Classification) -> str:
    ranked = sorted(result.probabilities.items(), key=lambda item: -item[1])
    return "\n".join(f"{probability:7.2%}  {label}" for label, probability in ranked)


def _tags(result: Tags) -> str:
    return alignment.under(result.tokens, result.tags, shutil.get_terminal_size().columns)


def _translation(result: Translation) -> str:
    return result.translation


def _answer(result: Answer) -> str:
    return f"{result.answer}  ({result.score:.0%} sure)"


def _embedding(result: Embedding) -> str:
    values = result.embedding
    shown = " ".join(f"{value:.3f}" for value in values[:8])
    return f"{len(values)} numbers: {shown}{' ...' if len(values) > 8 else ''}"


QUESTIONS = {
    "generate": Question(_generate, _generation, repeated="prompt"),
    "score": Question(lambda spec: task_calls.score(spec, required("text")), _score),
    "classify": Question(lambda spec: task_calls.classify(spec, required("text")), _classification),
    "tag": Question(lambda spec: task_calls.tag(spec, required("text")), _tags),
    "translate": Question(
        lambda spec: task_calls.translate(spec, required("text"), **given("beam_width", "max_new_tokens")),
        _translation,
    ),
    "answer": Question(
        lambda spec: task_calls.answer(spec, required("context"), required("question")),
        _answer,
        repeated="question",
    ),
    "embed": Question(lambda spec: task_calls.embed(spec, required("text")), _embedding),
}
