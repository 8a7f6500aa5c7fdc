"""What the client library asks of models of all tasks, and of servers about them."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_stub import answering, inputs_of, stub_of, with_client

from serving.client import ServerError
from serving.client_results import (
    Answer,
    Classification,
    ClassScore,
    Tags,
    Translation,
    VersionStatus,
)
from serving.messages import (
    classification_pb2,
    get_model_status_pb2,
    model_management_pb2,
    regression_pb2,
)

CODES = grpc.StatusCode
CLASSIFY = "/tensorflow.serving.PredictionService/Classify"
REGRESS = "/tensorflow.serving.PredictionService/Regress"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
HEALTH = "/grpc.health.v1.Health/Check"


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Asks a server something with either client."""

    def ask(address, use, **options):
        return with_client(request.param, address, use, **options)

    return ask


def float32(*values):
    return np.array(values, np.float32)


def test_classify(ask):
    response = answering(
        label=[b"sea"], labels=[["sky", "sea"]], probabilities=float32([0.25, 0.75]).reshape(1, 2)
    )
    with stub_of(response) as (address, requests):
        result = ask(address, lambda client: client.classify("a \udcff"))
    assert result == Classification("sea", {"sky": 0.25, "sea": 0.75}, version=5)
    assert inputs_of(requests[0]) == ("serving_default", {"text": [b"a \xff"]})


def test_tag(ask):
    columns = {
        "tokens": [["The", "dog", ""]],
        "tags": [["DET", "NOUN", ""]],
        "scores": [[0.5, 0.25, 0.0]],
        "starts": [[0, 4, 0]],
        "ends": [[3, 7, 0]],
        "lengths": [2],
    }
    with stub_of(answering(**columns)) as (address, requests):
        result = ask(address, lambda client: client.tag("The dog"))
    assert result == Tags(["The", "dog"], ["DET", "NOUN"], [0.5, 0.25], [0, 4], [3, 7], version=5)
    assert inputs_of(requests[0]) == ("serving_default", {"text": [b"The dog"]})


def test_tags_of_nothing(ask):
    nothing = np.zeros([1, 0], np.int32)
    columns = {"tokens": np.zeros([1, 0], "S1"), "tags": np.zeros([1, 0], "S1"), "scores": nothing}
    with stub_of(answering(**columns, starts=nothing, ends=nothing, lengths=[0])) as (address, _):
        assert ask(address, lambda client: client.tag("")) == Tags([], [], [], [], [], version=5)


def test_translate(ask):
    with stub_of(answering(translation=["Haus"], log_prob=[-0.5])) as (address, requests):
        assert ask(
            address, lambda client: client.translate("house", beam_width=4, max_new_tokens=9)
        ) == Translation("Haus", -0.5, version=5)
        ask(address, lambda client: client.translate("house"))
    assert inputs_of(requests[0]) == (
        "serving_default",
        {"text": [b"house"], "beam_width": [4], "max_new_tokens": [9]},
    )
    assert inputs_of(requests[1]) == ("serving_default", {"text": [b"house"]})


def test_answer(ask):
    with stub_of(answering(answer=["attic"], start=[15], end=[20], score=[0.5])) as (address, requests):
        result = ask(address, lambda client: client.answer("Ada ran to the attic.", "Where?"))
    assert result == Answer("attic", 15, 20, 0.5, version=5)
    assert inputs_of(requests[0]) == (
        "serving_default",
        {"context": [b"Ada ran to the attic."], "question": [b"Where?"]},
    )


def test_embed(ask):
    with stub_of(answering(embedding=float32(1, 2, 3).reshape(1, 3))) as (address, requests):
        result = ask(address, lambda client: client.embed("é"))
    assert (result.embedding.tolist(), result.embedding.dtype, result.version) == ([1, 2, 3], np.float32, 5)
    assert inputs_of(requests[0]) == ("embed", {"text": ["é".encode()]})


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({"logits": [1.0]}, "it gives no output 'label': logits"),
        ({"label": [1.0]}, "its output 'label' is not of strings"),
        ({"label": np.zeros([0], "S1")}, "its output 'label' is empty"),
        ({"label": ["a"], "probabilities": ["b"]}, "its output 'probabilities' is not of numbers"),
    ],
)
def test_a_model_that_answers_something_else(ask, outputs, reason):
    outputs = {"labels": [["a"]], "probabilities": [[1.0]], **outputs}
    if "logits" in outputs:
        del outputs["labels"], outputs["probabilities"]
    with stub_of(answering(**outputs)) as (address, _), pytest.raises(ServerError) as error:
        ask(address, lambda client: client.classify("a"))
    assert error.value.code is CODES.FAILED_PRECONDITION
    assert str(error.value) == f"'model' at {address} is not a model that can do this: {reason}"


def test_classify_examples(ask):
    response = classification_pb2.ClassificationResponse()
    for scores in ([("a", 0.25), ("b", 0.75)], [("", 1.5)]):
        found = response.result.classifications.add()
        for label, score in scores:
            found.classes.add(label=label, score=score)
    examples = [
        {"text": "é", "count": 3, "weights": [0.5, 1]},
        {"words": [b"a", "b"], "ids": np.array([1, 2])},
    ]
    with stub_of(response, CLASSIFY) as (address, requests):
        result = ask(address, lambda client: client.classify_examples(examples, "classify"))
    assert result == [[ClassScore("a", 0.25), ClassScore("b", 0.75)], [ClassScore("", 1.5)]]
    request = classification_pb2.ClassificationRequest.FromString(requests[0])
    assert (request.model_spec.name, request.model_spec.signature_name) == ("model", "classify")
    first, second = request.input.example_list.examples
    assert first.features.feature["text"].bytes_list.value == ["é".encode()]
    assert first.features.feature["count"].int64_list.value == [3]
    assert first.features.feature["weights"].float_list.value == [0.5, 1.0]
    assert second.features.feature["words"].bytes_list.value == [b"a", b"b"]
    assert second.features.feature["ids"].int64_list.value == [1, 2]


def test_regress(ask):
    response = regression_pb2.RegressionResponse()
    for value in (0.5, -2.0):
        response.result.regressions.add(value=value)
    with stub_of(response, REGRESS) as (address, requests):
        assert ask(address, lambda client: client.regress([{"x": 1.0}, {"x": 2.0}])) == [0.5, -2.0]
    request = regression_pb2.RegressionRequest.FromString(requests[0])
    values = [each.features.feature["x"].float_list.value for each in request.input.example_list.examples]
    assert values == [[1.0], [2.0]]


def test_status(ask, language):
    assert ask(language.address, lambda client: client.status()) == [VersionStatus(7, "AVAILABLE", "OK", "")]


def test_status_of_a_version_that_failed(ask):
    response = get_model_status_pb2.GetModelStatusResponse()
    version = response.model_version_status.add(version=2, state=50)
    version.status.error_code, version.status.error_message = 3, "no such op"
    with stub_of(response, STATUS) as (address, _):
        versions = ask(address, lambda client: client.status())
    assert versions == [VersionStatus(2, "END", "INVALID_ARGUMENT", "no such op")]


def test_metadata(ask, arithmetic):
    metadata = ask(arithmetic.address, lambda client: client.metadata())
    assert metadata.version == 3
    assert sorted(metadata.signatures) == ["number", "plain", "serving_default", "wait"]
    scaled = metadata.signatures["serving_default"]
    assert scaled.method_name == "tensorflow/serving/predict"
    assert {alias: info[:2] for alias, info in scaled.inputs.items()} == {
        "x": ("float", (None,)),
        "scale": ("float", (None,)),
    }
    assert (scaled.inputs["x"].default, scaled.inputs["scale"].default.tolist()) == (None, [2.0])
    assert sorted(scaled.outputs) == ["x_again", "y"]
    assert metadata.signatures["number"].inputs["text"][:2] == ("string", None)
    assert metadata.signatures["wait"].inputs["path"][:2] == ("string", ())


def test_reload(ask):
    config = 'model_config_list { config { name: "a" base_path: "/models/a" model_platform: "tensorflow" } }'
    with stub_of(model_management_pb2.ReloadConfigResponse(), RELOAD) as (address, requests):
        assert ask(address, lambda client: client.reload(config)) is None
    (model,) = model_management_pb2.ReloadConfigRequest.FromString(
        requests[0]
    ).config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("a", "/models/a", "tensorflow")


def test_a_configuration_that_is_none(ask):
    message = r"Error parsing text-format tensorflow\.serving\.ModelServerConfig: 1:1"
    with pytest.raises(ValueError, match=message):
        ask("127.0.0.1:1", lambda client: client.reload("models {}"))


@pytest.mark.parametrize(("state", "expected"), [("SERVING", True), ("NOT_SERVING", False)])
def test_is_serving(ask, state, expected):
    response = health_pb2.HealthCheckResponse(status=state)
    with stub_of(response, HEALTH) as (address, requests):
        assert ask(address, lambda client: client.is_serving()) is expected
    assert health_pb2.HealthCheckRequest.FromString(requests[0]).service == ""
