"""The commands of zoo-query that ask a model about a text."""

from __future__ import annotations

import codecs
import math
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from serving import alignment, generation_calls, query_generation_flags, search_calls, task_calls
from serving.calls import Call
from serving.client import Client
from serving.client_results import (
    Answer,
    Classification,
    Continuations,
    Embedding,
    Generation,
    GenerationDetails,
    Score,
    ScoreDetails,
    Tags,
    Translation,
)
from serving.generation_calls import Streaming
from serving.query_flags import given, required
from serving.query_generation_flags import numbers
from serving.query_output import finish, show
from serving.token_lines import quoted, token_lines


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
    prompt = required("prompt")
    if flags.FLAGS.stream:
        return generation_calls.stream(spec, prompt, **query_generation_flags.streaming())
    call = generation_calls.generate_details if flags.FLAGS.details else generation_calls.generate
    return call(spec, prompt, **query_generation_flags.continuation())


def _generation(result: Generation | GenerationDetails) -> str:
    return _with_details(required("prompt") + result.text, result)


def _beam(spec: Any) -> Call[Any]:
    prompt, options = required("prompt"), numbers("beam_width", "max_new_tokens", "length_penalty")
    return search_calls.beam(spec, prompt, **options)


def _continuations(result: Continuations) -> str:
    return "\n".join(f"{each.log_prob:10.4f} {quoted(each.text.encode())}" for each in result.continuations)


def _contrastive(spec: Any) -> Call[Any]:
    prompt, options = required("prompt"), numbers("max_new_tokens", "top_k", "alpha")
    return search_calls.contrastive(spec, prompt, **options)


def _score_of(spec: Any) -> Call[Any]:
    call = task_calls.score_tokens if flags.FLAGS.details else task_calls.score
    return call(spec, required("text"))


def _score(result: Score | ScoreDetails) -> str:
    summary = (
        f"log probability {result.log_prob:.4f} nats, {result.num_tokens} tokens, "
        f"perplexity {result.perplexity:.4f}"
    )
    return _with_details(summary, result)


def _with_details(text: str, result: Any) -> str:
    """Below the text its tokens, if the result has them."""
    if not isinstance(result, GenerationDetails | ScoreDetails):
        return text
    return f"{text}\n\n{token_lines(result.tokens, shutil.get_terminal_size().columns)}"


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
    "score": Question(_score_of, _score),
    "beam": Question(_beam, _continuations, repeated="prompt"),
    "contrastive": Question(_contrastive, _generation, repeated="prompt"),
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
