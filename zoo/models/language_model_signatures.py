"""The signatures of an exported language model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from zoo.decoding import Setting
from zoo.models.language_model_serving import BEAM, CONTRASTIVE, GENERATE, STEP, LanguageModelService

if TYPE_CHECKING:
    from zoo.models.next_token import NextTokenModel


def signatures(model: NextTokenModel) -> dict[str, Any]:
    """Functions by signature name."""
    service = LanguageModelService(model)
    text, prompt = (tf.TensorSpec([None], tf.string, name) for name in ("text", "prompt"))
    state = tf.TensorSpec([None, service.state_width], tf.float32, "state")
    generated = _function(service.generate, prompt, GENERATE)  # traced once, for both that call it

    def start(prompt):
        return {"state": service.start(prompt)}

    def generate(prompt, **settings):
        return _without_ids(generated(prompt, **settings))

    def generate_details(prompt, **settings):
        answer = generated(prompt, **settings)
        details = service.generated_details(prompt, answer["ids"], answer["num_tokens"])
        return {**_without_ids(answer), **details}

    generate = _function(generate, prompt, GENERATE)
    return {
        "serving_default": generate,
        "generate": generate,
        "generate_details": _function(generate_details, prompt, GENERATE),
        "score": _function(service.score, text),
        "score_tokens": _function(service.score_tokens, text),
        "start": _function(start, prompt),
        "step": _function(service.step, state, STEP),
        "beam": _function(service.beam, prompt, BEAM),
    }


def contrastive(model: NextTokenModel) -> Any:
    """The signature of contrastive search, for models whose contexts are `hidden` vectors."""
    prompt = tf.TensorSpec([None], tf.string, "prompt")
    return _function(LanguageModelService(model).contrastive, prompt, CONTRASTIVE)


def narrow(model: NextTokenModel, wide: Mapping[str, Any]) -> dict[str, Any]:
    """The signatures without the inputs that came later, for callers who have to give them all."""
    prompt = tf.TensorSpec([None], tf.string, "prompt")
    state = tf.TensorSpec([None, LanguageModelService(model).state_width], tf.float32, "state")

    def generate(prompt, **given):
        return wide["generate"](prompt, **given)

    def step(state, **given):
        return wide["step"](state, **given)

    of_step = {name: STEP[name] for name in ("temperature", "top_k", "top_p", "seed")}
    generate = _function(generate, prompt, {"max_new_tokens": GENERATE["max_new_tokens"], **of_step})
    return {"serving_default": generate, "generate": generate, "step": _function(step, state, of_step)}


def _without_ids(answer):
    return {name: value for name, value in answer.items() if name != "ids"}


def _function(
    compute: Callable[..., Any], first: tf.TensorSpec, settings: Mapping[str, Setting] | None = None
) -> Any:
    """A function of `first` and the settings, whose defaults of one row become those of the signature."""
    settings = settings or {}

    def function(value, *arguments, **named):
        return compute(value, **dict(zip(settings, arguments, strict=False)), **named)

    function.__name__ = compute.__name__
    # TensorFlow asks for the parameters' names and defaults here.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    optional = [inspect.Parameter(name, kind, default=each.row) for name, each in settings.items()]
    function.__signature__ = inspect.Signature([inspect.Parameter(first.name, kind), *optional])  # type: ignore[attr-defined]
    specs = [first, *(setting.spec(name) for name, setting in settings.items())]
    return tf.function(function, input_signature=specs, autograph=False)


def requests(model: NextTokenModel) -> dict[str, dict[str, Any]]:
    """Inputs by signature name: texts of different lengths, and prompts continued greedily."""
    words = [piece for piece in model.tokenizer.pieces if piece.strip()][:8]
    texts = [b"", *words, b"".join(words), b"".join(reversed(words))]
    greedy = {"temperature": [0.0], "top_k": [0], "top_p": [1.0], "seed": [[1, 2]]}
    prompts = {"prompt": texts, "max_new_tokens": [20], **greedy}
    state = LanguageModelService(model).start(tf.constant(texts)).numpy()
    return {
        "score": {"text": texts},
        "generate": prompts,
        "serving_default": prompts,
        "start": {"prompt": texts},
        "step": {"state": state, **greedy},
        "generate_details": prompts,
        "score_tokens": {"text": texts},
        "beam": {"prompt": texts, "max_new_tokens": [8]},
    }
