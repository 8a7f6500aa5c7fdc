"""The flags of zoo-query that say how a text is to be continued."""

from __future__ import annotations

import math
from typing import Any

from absl import flags

from serving import program
from serving.query_flags import given

_LARGEST_INT32 = 2**31 - 1
_ABOVE_0 = ("top_p", "typical_p", "repetition_penalty")
_OF_STEPS = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "min_p", "typical_p")
_NOT_OF_STEPS = ("repetition_penalty", "stop", "bad_words", "details")


def continuation() -> dict[str, Any]:
    """How a text is to be continued at once.

    Raises:
        UsageError: a flag makes no sense.
    """
    return {**numbers(*_OF_STEPS, "repetition_penalty"), **_texts("stop", "bad_words")}


def streaming() -> dict[str, Any]:
    """How a text is to be continued token by token.

    Raises:
        UsageError: a flag makes no sense, or is of no use to a stream.
    """
    for name in _NOT_OF_STEPS:
        value = getattr(flags.FLAGS, name)
        if value is not None and value is not False:
            raise program.UsageError(
                f"--{name} does not go with --stream: models know it only where they give a text at once"
            )
    return {**numbers(*_OF_STEPS), **given("tokens_per_message")}


def numbers(*names: str) -> dict[str, Any]:
    """The values of those flags that were given.

    Raises:
        UsageError: one makes no sense.
    """
    options = given(*names)
    for name, value in options.items():
        if not math.isfinite(value) or (name in _ABOVE_0 and value == 0):
            raise program.UsageError(f"--{name}={value} makes no sense: {flags.FLAGS[name].help}")
    return options


def _texts(*names: str) -> dict[str, Any]:
    options = given(*names)
    for name, values in options.items():
        if "" in values:
            raise program.UsageError(f"--{name}= is empty, and has to be a text")
    return options


def define_flags() -> None:
    """Defined when the program runs, so that importing this module claims no flag names."""
    _define_sampling()
    _define_words()
    _define_search()
    _define_what_comes_back()


def _define_sampling() -> None:
    flags.DEFINE_integer(
        "max_new_tokens",
        None,
        "generate, beam, contrastive: stop after so many.",
        lower_bound=0,
        upper_bound=_LARGEST_INT32,
    )
    flags.DEFINE_float(
        "temperature", None, "generate: 0 takes the likeliest token, 1 samples as trained.", lower_bound=0
    )
    flags.DEFINE_integer(
        "top_k",
        None,
        "generate: sample among the K likeliest tokens; 0 means all. contrastive: choose among so many.",
        lower_bound=0,
        upper_bound=_LARGEST_INT32,
    )
    _define_share(
        "top_p", "generate: sample among the likeliest tokens that have this share, above 0 and up to 1."
    )
    _define_share(
        "min_p",
        "generate: sample among the tokens with this share of the likeliest one's probability; 0 means all.",
    )
    _define_share(
        "typical_p",
        "generate: sample among the tokens that have this share, above 0 and up to 1, those first that "
        "surprise about as much as is to be expected.",
    )
    flags.DEFINE_integer(
        "seed",
        None,
        "generate: the same seed draws the same text again, from the same model and in the same way "
        "(streamed or not); without one each text is new.",
        lower_bound=0,
        upper_bound=_LARGEST_INT32,
    )


def _define_share(name: str, meaning: str) -> None:
    flags.DEFINE_float(name, None, meaning, lower_bound=0, upper_bound=1)


def _define_words() -> None:
    flags.DEFINE_float(
        "repetition_penalty",
        None,
        "generate: above 1, tokens that were there before are less likely; 1 means no penalty.",
        lower_bound=0,
    )
    flags.DEFINE_multi_string("stop", None, "generate: the text ends before the first of these")
    flags.DEFINE_multi_string("bad_words", None, "generate: the text has none of these")


def _define_search() -> None:
    flags.DEFINE_integer(
        "beam_width",
        None,
        "beam, translate: how many hypotheses are followed; 1 is greedy. beam shows as many continuations.",
        lower_bound=1,
        upper_bound=_LARGEST_INT32,
    )
    flags.DEFINE_float(
        "length_penalty",
        None,
        "beam: above 0, longer texts are ranked higher than by their log probabilities; 0 means none.",
        lower_bound=0,
    )
    _define_share(
        "alpha",
        "contrastive: how much not to repeat weighs against probability; 0 takes the likeliest token.",
    )


def _define_what_comes_back() -> None:
    flags.DEFINE_boolean(
        "details",
        False,
        "generate, score: each token with its log probability and the likeliest in its place.",
    )
    flags.DEFINE_boolean("stream", False, "generate: show tokens as they come.")
    flags.DEFINE_integer(
        "tokens_per_message",
        None,
        "generate --stream: so many tokens come at once, for less effort.",
        lower_bound=1,
        upper_bound=_LARGEST_INT32,
    )
