"""Classify, Regress, MultiInference on a SavedModel of TensorFlow 1, whose signatures share their input."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_stub import with_client
from tensorflow_1 import METHODS, save_tensorflow_1

from serving.client_results import ClassScore, Inferences
from serving.messages import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

CODES = grpc.StatusCode
DEADLINE = 60


@pytest.fixture(scope="module")
def server(serve, publish, tmp_path_factory):
    """Version 5 of that model."""
    export = tmp_path_factory.mktemp("tensorflow_1") / "export"
    save_tensorflow_1(export)
    base_path = tmp_path_factory.mktemp("inference")
    publish(export, base_path, 5)
    return serve(base_path)


def example(**features):
    message = tf.train.Example()
    for name, value in features.items():
        message.features.feature[name].float_list.value.append(value)
    return message


def examples(*messages):
    return input_pb2.Input(example_list={"examples": messages})


X = (1.0, -3.0, 0.5)


@pytest.fixture
def ask(server, make_spec):
    """Calls Classify or Regress about the examples X, or others."""

    def call(method, signature, sent=None, **spec):
        kind = {
            "Classify": classification_pb2.ClassificationRequest,
            "Regress": regression_pb2.RegressionRequest,
        }[method]
        sent = examples(*(example(x=x) for x in X)) if sent is None else sent
        request = kind(model_spec=make_spec(signature_name=signature, **spec), input=sent)
        stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel)
        return getattr(stub, method)(request, timeout=DEADLINE)

    return call


def classes(result):
    return [[(each.label, each.score) for each in row.classes] for row in result.classifications]


def numbers(result):
    return [regression.value for regression in result.regressions]


@pytest.mark.parametrize(
    ("signature", "labels", "scored"),
    [("both", ("up", "down"), 1), ("scores", ("", ""), 1), ("classes", ("up", "down"), 0)],
)
def test_classes_and_scores(ask, signature, labels, scored):
    response = ask("Classify", signature)
    expected = [[(labels[0], scored * 2 * x), (labels[1], scored * -2 * x)] for x in X]
    assert classes(response.result) == expected
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("model", 5, signature)


@pytest.mark.parametrize("signature", ["numbers", "column"])
def test_regression(ask, signature):
    response = ask("Regress", signature)
    assert numbers(response.result) == [2 * x for x in X]
    assert response.model_spec.version.value == 5


def test_what_examples_have_in_common(ask):
    common = input_pb2.Input(
        example_list_with_context={
            "context": example(offset=100.0, x=9.0),
            "examples": [example(x=1.0), example(), example(x=1.0, offset=0.0)],
        }
    )
    assert numbers(ask("Regress", "numbers", common).result) == [102, 118, 2]


ERRORS = [
    ("Classify", "nowhere", CODES.INVALID_ARGUMENT, "No signature was found with the name: nowhere"),
    ("Classify", "two", CODES.INVALID_ARGUMENT, "Expected one input Tensor."),
    ("Classify", "text", CODES.FAILED_PRECONDITION, "No classification inputs found in SignatureDef"),
    ("Classify", "three", CODES.INVALID_ARGUMENT, "Expected one or two output Tensors, found 3"),
    (
        "Classify",
        "nothing",
        CODES.FAILED_PRECONDITION,
        'Expected classification signature outputs to contain at least one of "classes" or "scores"',
    ),
    (
        "Classify",
        "flat_scores",
        CODES.INVALID_ARGUMENT,
        "Expected Tensor shape: [batch_size num_classes] but got [3]",
    ),
    ("Classify", "half_scores", CODES.INVALID_ARGUMENT, "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
    ("Classify", "too_few", CODES.INVALID_ARGUMENT, "Expected scores output batch size of 3. Got: 1"),
    (
        "Classify",
        "unequal",
        CODES.INVALID_ARGUMENT,
        "Tensors class and score should match in dim_size(1). Got 3 vs. 2",
    ),
    ("Regress", "both", CODES.INVALID_ARGUMENT, "Expected one output Tensor."),
    ("Regress", "scores", CODES.FAILED_PRECONDITION, "No regression outputs found in SignatureDef"),
    (
        "Regress",
        "wide",
        CODES.INVALID_ARGUMENT,
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [3,2]",
    ),
    ("Regress", "double", CODES.INVALID_ARGUMENT, "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
    ("Regress", "sum", CODES.INVALID_ARGUMENT, "Input batch size did not match output batch size: 3 vs. 1"),
]


@pytest.mark.parametrize(("method", "signature", "code", "message"), ERRORS)
def test_what_is_wrong_is_said(ask, method, signature, code, message):
    with pytest.raises(grpc.RpcError) as raised:
        ask(method, signature)
    assert (raised.value.code(), raised.value.details()) == (code, message)


@pytest.mark.parametrize("method", ["Classify", "Regress"])
@pytest.mark.parametrize("sent", [input_pb2.Input(), examples()])
def test_no_examples(ask, method, sent):
    with pytest.raises(grpc.RpcError) as raised:
        ask(method, "both", sent)
    assert (raised.value.code(), raised.value.details()) == (CODES.INVALID_ARGUMENT, "Input is empty.")


@pytest.fixture
def infer(server, make_spec):
    """MultiInference of pairs of method and signature about the examples X."""

    def call(*tasks, sent=None, **spec):
        request = inference_pb2.MultiInferenceRequest(
            input=examples(*(example(x=x) for x in X)) if sent is None else sent
        )
        for method, signature in tasks:
            request.tasks.add(
                model_spec=make_spec(signature_name=signature, **spec),
                method_name=METHODS.get(method, method),
            )
        stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel)
        return stub.MultiInference(request, timeout=DEADLINE)

    return call


def test_several_inferences_at_once(infer):
    first, second, third = infer(("regress", "numbers"), ("classify", "scores"), ("classify", "both")).results
    assert numbers(first.regression_result) == [2 * x for x in X]
    assert classes(second.classification_result) == [[("", 2 * x), ("", -2 * x)] for x in X]
    assert classes(third.classification_result)[0] == [("up", 2), ("down", -2)]
    assert (third.model_spec.name, third.model_spec.version.value) == ("model", 5)
    assert [result.model_spec.signature_name for result in (first, second, third)] == [
        "numbers", "scores", "both",
    ]  # fmt: skip


MULTI_ERRORS = [
    ([], CODES.INVALID_ARGUMENT, "Missing ModelSpec"),
    (
        [("regress", "numbers"), ("regress", "numbers")],
        CODES.INVALID_ARGUMENT,
        "Duplicate evaluation of signature: numbers",
    ),
    (
        [("regress", "numbers"), ("regress", "nowhere")],
        CODES.INVALID_ARGUMENT,
        "Requested signature not found in model graph: nowhere",
    ),
    ([("divide", "numbers")], CODES.UNIMPLEMENTED, "Unsupported signature method_name: divide"),
    (
        [("regress", "numbers"), ("regress", "other")],
        CODES.INVALID_ARGUMENT,
        "Input tensor must be the same for all Signatures.",
    ),
    ([("classify", "numbers")], CODES.FAILED_PRECONDITION, "Expected classification signature outputs to"),
]


@pytest.mark.parametrize(("tasks", "code", "message"), MULTI_ERRORS)
def test_what_is_wrong_with_several(infer, tasks, code, message):
    with pytest.raises(grpc.RpcError) as raised:
        infer(*tasks)
    assert raised.value.code() == code
    assert raised.value.details().startswith(message)


def test_several_are_of_one_model(server, make_spec):
    request = inference_pb2.MultiInferenceRequest(input=examples(example(x=1.0)))
    for name in ("model", "other"):
        request.tasks.add(
            model_spec=make_spec(name=name, signature_name="numbers"), method_name=METHODS["regress"]
        )
    stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel)
    with pytest.raises(grpc.RpcError) as raised:
        stub.MultiInference(request, timeout=DEADLINE)
    message = "All ModelSpecs in a MultiInferenceRequest must access the same model name."
    assert (raised.value.code(), raised.value.details()) == (CODES.INVALID_ARGUMENT, message)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_several_asked_by_the_client(server, kind):
    def use(client):
        sent = [{"x": x} for x in X]
        return client.multi_inference(sent, classify=["both", "classes"], regress=["numbers"])

    found = with_client(kind, server.address, use, version=5)
    assert found == Inferences(
        {
            "both": [[ClassScore("up", 2 * x), ClassScore("down", -2 * x)] for x in X],
            "classes": [[ClassScore("up", 0), ClassScore("down", 0)] for x in X],
        },
        {"numbers": [2 * x for x in X]},
        version=5,
    )
    with pytest.raises(ValueError, match="no signature is named"):
        with_client(kind, server.address, lambda client: client.multi_inference([{"x": 1.0}]))


def test_batched_as_well_as_alone(server, ask):
    """The same over many rows, which the graph computes at once."""
    many = np.random.default_rng(2).normal(size=50).astype(np.float32)
    response = ask("Regress", "numbers", examples(*(example(x=float(x)) for x in many)))
    np.testing.assert_allclose(numbers(response.result), 2 * many, rtol=1e-6)
