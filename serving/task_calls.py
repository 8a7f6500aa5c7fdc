"""What models can be asked: the signatures of our exports, and the stock server's general requests."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from serving import tensors
from serving.calls import (
    PREDICT,
    Call,
    Rpc,
    number_of,
    numbers_of,
    predict_request,
    row,
    text_of,
    texts_of,
    version_of,
)
from serving.client_results import (
    Answer,
    Classification,
    ClassScore,
    Embedding,
    Inferences,
    Outputs,
    Score,
    ScoreDetails,
    Tags,
    Translation,
)
from serving.messages import classification_pb2, example_pb2, inference_pb2, input_pb2, regression_pb2
from serving.token_details import tokens_of

Feature: TypeAlias = str | bytes | float | Sequence[str] | Sequence[bytes] | Sequence[float]
_CLASSIFY = Rpc("/tensorflow.serving.PredictionService/Classify", classification_pb2.ClassificationResponse)
_REGRESS = Rpc("/tensorflow.serving.PredictionService/Regress", regression_pb2.RegressionResponse)
_MULTI_INFERENCE = Rpc(
    "/tensorflow.serving.PredictionService/MultiInference", inference_pb2.MultiInferenceResponse
)


def predict(
    spec: Any, inputs: Mapping[str, np.ndarray], signature: str = "", output_filter: Sequence[str] = ()
) -> Call[Outputs]:
    """The outputs of a signature (of `serving_default`, if none is named), or only those named.

    Strings may be given as text or as bytes; they come back as bytes.
    """
    return Call(PREDICT, predict_request(spec, signature, inputs, output_filter), _outputs)


def _outputs(response: Any) -> Outputs:
    arrays = {alias: tensors.to_array(proto) for alias, proto in response.outputs.items()}
    return Outputs(arrays, version_of(response))


def classify_examples(
    spec: Any, examples: Sequence[Mapping[str, Feature]], signature: str = ""
) -> Call[list[list[ClassScore]]]:
    """The classes of each example (features by name), by the stock request Classify."""
    request = classification_pb2.ClassificationRequest(model_spec=spec, input=_input(examples))
    request.model_spec.signature_name = signature
    return Call(_CLASSIFY, request, lambda response: _class_scores(response.result))


def _class_scores(result: Any) -> list[list[ClassScore]]:
    return [
        [ClassScore(each.label, each.score) for each in found.classes] for found in result.classifications
    ]


def regress(spec: Any, examples: Sequence[Mapping[str, Feature]], signature: str = "") -> Call[list[float]]:
    """A number for each example (features by name), by the stock request Regress."""
    request = regression_pb2.RegressionRequest(model_spec=spec, input=_input(examples))
    request.model_spec.signature_name = signature
    return Call(_REGRESS, request, lambda response: _values(response.result))


def _values(result: Any) -> list[float]:
    return [each.value for each in result.regressions]


def multi_inference(
    spec: Any,
    examples: Sequence[Mapping[str, Feature]],
    *,
    classify: Sequence[str] = (),
    regress: Sequence[str] = (),
) -> Call[Inferences]:
    """What several signatures say of the same examples, all from one version, by the stock request
    MultiInference. Servers want each signature once, and all to have one input.

    Raises:
        ValueError: no signature is named.
    """
    if not classify and not regress:
        raise ValueError("no signature is named, neither to classify nor to regress")
    request = inference_pb2.MultiInferenceRequest(input=_input(examples))
    for method, signatures in (("classify", classify), ("regress", regress)):
        for signature in signatures:
            task = request.tasks.add(model_spec=spec, method_name=f"tensorflow/serving/{method}")
            task.model_spec.signature_name = signature
    return Call(_MULTI_INFERENCE, request, lambda response: _inferences(response, classify, regress))


def _inferences(response: Any, classify: Sequence[str], regress: Sequence[str]) -> Inferences:
    results = dict(zip([*classify, *regress], response.results, strict=True))
    return Inferences(
        {name: _class_scores(results[name].classification_result) for name in classify},
        {name: _values(results[name].regression_result) for name in regress},
        version_of(response.results[0]),
    )


def _input(examples: Sequence[Mapping[str, Feature]]) -> input_pb2.Input:
    protos = [
        example_pb2.Example(features={"feature": {name: _feature(value) for name, value in example.items()}})
        for example in examples
    ]
    return input_pb2.Input(example_list=input_pb2.ExampleList(examples=protos))


def _feature(value: Feature) -> Mapping[str, Any]:
    values: list[Any] = [value] if isinstance(value, str | bytes | int | float) else list(value)
    if all(isinstance(each, str | bytes) for each in values):
        strings = [each.encode() if isinstance(each, str) else each for each in values]
        return {"bytes_list": {"value": strings}}
    whole = all(isinstance(each, numbers.Integral) for each in values)
    return {"int64_list" if whole else "float_list": {"value": values}}


def score(spec: Any, text: str) -> Call[Score]:
    """How likely the text is."""
    return Call(PREDICT, predict_request(spec, "score", {"text": row(text)}), _score)


def _score(response: Any) -> Score:
    log_prob, num_tokens, perplexity = (
        number_of(response, alias) for alias in ("log_prob", "num_tokens", "perplexity")
    )
    return Score(float(log_prob), int(num_tokens), float(perplexity), version_of(response))


def score_tokens(spec: Any, text: str) -> Call[ScoreDetails]:
    """How likely each token of the text is, and what would have been likelier."""
    return Call(PREDICT, predict_request(spec, "score_tokens", {"text": row(text)}), _score_details)


def _score_details(response: Any) -> ScoreDetails:
    tokens = tokens_of(response)
    log_prob = math.fsum(token.log_prob for token in tokens)
    with np.errstate(over="ignore"):
        perplexity = float(np.exp(-log_prob / max(len(tokens), 1)))
    return ScoreDetails(log_prob, len(tokens), perplexity, tokens, version_of(response))


def classify(spec: Any, text: str) -> Call[Classification]:
    """What kind of text it is."""
    return Call(PREDICT, predict_request(spec, "serving_default", {"text": row(text)}), _classification)


def _classification(response: Any) -> Classification:
    label, labels = text_of(response, "label"), texts_of(response, "labels")
    probabilities = numbers_of(response, "probabilities").tolist()
    return Classification(label, dict(zip(labels, probabilities, strict=True)), version_of(response))


def tag(spec: Any, text: str) -> Call[Tags]:
    """What each token of the text is."""
    return Call(PREDICT, predict_request(spec, "serving_default", {"text": row(text)}), _tags)


def _tags(response: Any) -> Tags:
    length = int(number_of(response, "lengths"))  # the rest is padding
    tokens, tags = (texts_of(response, alias)[:length] for alias in ("tokens", "tags"))
    scores, starts, ends = (
        numbers_of(response, alias)[:length].tolist() for alias in ("scores", "starts", "ends")
    )
    return Tags(tokens, tags, scores, starts, ends, version_of(response))


def translate(
    spec: Any, text: str, *, beam_width: int | None = None, max_new_tokens: int | None = None
) -> Call[Translation]:
    """What the text is in the other language."""
    options = {"beam_width": beam_width, "max_new_tokens": max_new_tokens}
    given = {alias: row(value, np.int32) for alias, value in options.items() if value is not None}
    request = predict_request(spec, "serving_default", {"text": row(text), **given})
    return Call(PREDICT, request, _translation)


def _translation(response: Any) -> Translation:
    translation, log_prob = text_of(response, "translation"), number_of(response, "log_prob")
    return Translation(translation, float(log_prob), version_of(response))


def answer(spec: Any, context: str, question: str) -> Call[Answer]:
    """The answer that the context gives to the question."""
    inputs = {"context": row(context), "question": row(question)}
    return Call(PREDICT, predict_request(spec, "serving_default", inputs), _answer)


def _answer(response: Any) -> Answer:
    found, score = text_of(response, "answer"), number_of(response, "score")
    start, end = (int(number_of(response, alias)) for alias in ("start", "end"))
    return Answer(found, start, end, float(score), version_of(response))


def embed(spec: Any, text: str) -> Call[Embedding]:
    """The text as a vector."""
    return Call(PREDICT, predict_request(spec, "embed", {"text": row(text)}), _embedding)


def _embedding(response: Any) -> Embedding:
    return Embedding(numbers_of(response, "embedding"), version_of(response))
