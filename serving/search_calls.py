"""What language models can be asked that they search for, and do not draw."""

from __future__ import annotations

import math
from typing import Any

from serving.calls import PREDICT, Call, numbers_of, predict_request, row, texts_of, version_of
from serving.client_results import Continuation, Continuations, Generation
from serving.generation_calls import generation_of, settings


def beam(
    spec: Any,
    prompt: str,
    *,
    beam_width: int | None = None,
    max_new_tokens: int | None = None,
    length_penalty: float | None = None,
) -> Call[Continuations]:
    """The likeliest continuations of the prompt, up to `beam_width` of them.

    With a `length_penalty` above 0 longer texts are ranked higher than their log probability would have them.
    """
    options = settings(beam_width=beam_width, max_new_tokens=max_new_tokens, length_penalty=length_penalty)
    return Call(PREDICT, predict_request(spec, "beam", {"prompt": row(prompt), **options}), _continuations)


def _continuations(response: Any) -> Continuations:
    found = zip(texts_of(response, "text"), numbers_of(response, "log_prob").tolist(), strict=True)
    possible = [Continuation(*each) for each in found if not math.isinf(each[1])]  # there may be fewer
    return Continuations(possible, version_of(response))


def contrastive(
    spec: Any,
    prompt: str,
    *,
    max_new_tokens: int | None = None,
    top_k: int | None = None,
    alpha: float | None = None,
) -> Call[Generation]:
    """Continues the prompt with that one of the `top_k` likeliest tokens each time that repeats the least.

    `alpha` weighs that against probability: 0 always takes the likeliest.
    """
    options = settings(max_new_tokens=max_new_tokens, top_k=top_k, alpha=alpha)
    request = predict_request(spec, "contrastive", {"prompt": row(prompt), **options})
    return Call(PREDICT, request, generation_of)
