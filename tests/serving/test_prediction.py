"""PredictionService through real sockets and the stock stubs, row by row of the stock server's errors."""

import random

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving.messages import (
    get_model_metadata_pb2,
    predict_pb2,
    types_pb2,
)

CODES = grpc.StatusCode
METHOD = "/tensorflow.serving.PredictionService/Predict"


def floats(*values):
    return np.array(values, np.float32)


def arrays(response):
    return {alias: tf.make_ndarray(proto) for alias, proto in response.outputs.items()}


def test_a_prediction(arithmetic):
    response = arithmetic.predict({"x": floats(1, 2), "scale": floats(10)})
    np.testing.assert_array_equal(arrays(response)["y"], [11, 21])
    assert response.model_spec.name == "model"
    assert response.model_spec.version.value == 3
    assert response.model_spec.signature_name == "serving_default"
    assert list(response.outputs["y"].float_val) == [11, 21]
    assert not response.outputs["y"].tensor_content


def test_defaults_of_the_signature_are_filled_in(arithmetic):
    np.testing.assert_array_equal(arrays(arithmetic.predict({"x": floats(1, 2, 3)}))["y"], [3, 5, 7])


def test_version_and_signature_may_be_named(arithmetic):
    response = arithmetic.predict({"x": floats(1)}, signature="plain", version=3)
    np.testing.assert_array_equal(arrays(response)["y"], [2])
    assert response.model_spec.signature_name == "plain"


def test_strings_and_scalars(arithmetic):
    outputs = arithmetic.predict({"text": b"12.5"}, signature="number").outputs
    assert (outputs["text"].string_val[0], outputs["number"].float_val[0]) == (b"12.5", 12.5)
    assert not outputs["text"].tensor_shape.dim
    outputs = arithmetic.predict({"text": [[b"1"], [b"2"]]}, signature="number").outputs
    np.testing.assert_array_equal(tf.make_ndarray(outputs["number"]), [[1], [2]])
    outputs = arithmetic.predict({"text": np.array([], np.object_)}, signature="number").outputs
    assert outputs["number"].tensor_shape.dim[0].size == 0


def test_shapes_are_not_checked_against_the_signature(arithmetic):
    assert arrays(arithmetic.predict({"x": np.ones([2, 2], np.float32)}))["y"].shape == (2, 2)


def test_output_filter(arithmetic, make_spec):
    request = request_for(make_spec(), x=floats(1))
    request.output_filter.append("x_again")
    assert list(arithmetic.prediction.Predict(request).outputs) == ["x_again"]


def request_for(spec, signature="", **inputs):
    request = predict_pb2.PredictRequest(model_spec=spec)
    request.model_spec.signature_name = signature
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return request


def broken_tensor(spec):
    request = request_for(spec)
    request.inputs["x"].dtype = types_pb2.DT_FLOAT
    request.inputs["x"].tensor_shape.unknown_rank = True
    return request


def filtered(spec, *outputs):
    request = request_for(spec, x=floats(1))
    request.output_filter.extend(outputs)
    return request


ERRORS = {
    "no model_spec": (
        lambda spec: predict_pb2.PredictRequest(),
        CODES.INVALID_ARGUMENT,
        "Missing ModelSpec",
    ),
    "empty name": (
        lambda spec: request_for(spec(name="")),
        CODES.INVALID_ARGUMENT,
        "ModelSpec has no name specified.",
    ),
    "unknown model": (
        lambda spec: request_for(spec(name="nobody"), x=floats(1)),
        CODES.NOT_FOUND,
        "Servable not found for request: Latest(nobody)",
    ),
    "unknown version": (
        lambda spec: request_for(spec(version=9), x=floats(1)),
        CODES.NOT_FOUND,
        "Servable not found for request: Specific(model, 9)",
    ),
    "unknown label": (
        lambda spec: request_for(spec(version_label="canary"), x=floats(1)),
        CODES.INVALID_ARGUMENT,
        "Unrecognized servable version label: canary",
    ),
    "unknown signature": (
        lambda spec: request_for(spec(), "nothing", x=floats(1)),
        CODES.FAILED_PRECONDITION,
        'Serving signature key "nothing" not found.',
    ),
    "missing input, no defaults": (
        lambda spec: request_for(spec(), "plain"),
        CODES.INVALID_ARGUMENT,
        "input size does not match signature: 0!=1 len({}) != len({x}). "
        "Sent extra: {}. Missing but required: {x}.",
    ),
    "extra input": (
        lambda spec: request_for(spec(), "plain", x=floats(1), z=floats(1)),
        CODES.INVALID_ARGUMENT,
        "input size does not match signature: 2!=1 len({x,z}) != len({x}). "
        "Sent extra: {z}. Missing but required: {}.",
    ),
    "wrong name": (
        lambda spec: request_for(spec(), "plain", z=floats(1)),
        CODES.INVALID_ARGUMENT,
        "Signature input alias: x(feed name: plain_x:0) not found in request and no default value provided. "
        "Inputs expected to be in the request {z}, or default input alias set: ",
    ),
    "missing input beside defaults": (
        lambda spec: request_for(spec(), scale=floats(1)),
        CODES.INVALID_ARGUMENT,
        "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value "
        "provided. Inputs expected to be in the request {scale}, or default input alias set: scale",
    ),
    "wrong name in place of a default": (
        lambda spec: request_for(spec(), x=floats(1), z=floats(1)),
        CODES.INVALID_ARGUMENT,
        "Inputs contains invalid name. Used request inputs: x, request input: x,z",
    ),
    "malformed tensor": (
        lambda spec: broken_tensor(spec()),
        CODES.INVALID_ARGUMENT,
        "tensor parsing error: x",
    ),
    "unknown output": (
        lambda spec: filtered(spec(), "q"),
        CODES.INVALID_ARGUMENT,
        "output tensor alias not found in signature: q Outputs expected to be in the set {x_again,y}.",
    ),
    "output twice": (
        lambda spec: filtered(spec(), "y", "y"),
        CODES.INVALID_ARGUMENT,
        "duplicate output tensor alias: y",
    ),
    "wrong dtype": (
        lambda spec: request_for(spec(), "plain", x=np.ones(1)),
        CODES.INVALID_ARGUMENT,
        "Expects arg[0] to be float but double is provided",
    ),
    "string for a number": (
        lambda spec: request_for(spec(), "plain", x=b"one"),
        CODES.INVALID_ARGUMENT,
        "Expects arg[0] to be float but string is provided",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_of_predict(arithmetic, make_spec, case):
    make_request, code, message = ERRORS[case]
    with pytest.raises(grpc.RpcError) as raised:
        arithmetic.prediction.Predict(make_request(make_spec))
    assert (raised.value.code(), raised.value.details()) == (code, message)


def test_what_the_graph_objects_to_is_passed_on(arithmetic):
    with pytest.raises(grpc.RpcError, match="Incompatible shapes") as raised:
        arithmetic.predict({"x": floats(1, 2, 3), "scale": floats(1, 2)})
    assert raised.value.code() == CODES.INVALID_ARGUMENT


def test_messages_that_quote_bytes(arithmetic):
    with pytest.raises(grpc.RpcError, match="could not correctly convert string: \ufffd") as raised:
        arithmetic.predict({"text": b"\xff\xfe"}, signature="number")
    assert raised.value.code() == CODES.INVALID_ARGUMENT


@pytest.mark.parametrize("letter", ["x", "ä"])
def test_long_messages_are_cut(arithmetic, letter):
    with pytest.raises(grpc.RpcError) as raised:
        arithmetic.predict({"x": floats(1)}, signature=letter * 2000)
    details = raised.value.details()
    assert details.endswith(letter + "...TRUNCATED")
    assert 1022 <= len(details.removesuffix("...TRUNCATED").encode()) <= 1024


def test_the_signature_that_initialises_a_model_is_no_way_to_break_it(arithmetic):
    with pytest.raises(grpc.RpcError) as raised:
        arithmetic.predict({}, signature="__saved_model_init_op")
    assert raised.value.code() in (CODES.INVALID_ARGUMENT, CODES.OUT_OF_RANGE)  # TensorFlow's choice
    assert arithmetic.predict({"x": floats(1)}).outputs


def test_mutilated_requests_are_the_callers_fault(arithmetic, make_spec):
    call = arithmetic.channel.unary_unary(METHOD)
    whole = request_for(make_spec(), x=floats(1, 2), scale=floats(3))
    whole.output_filter.append("y")
    whole = whole.SerializeToString()
    chance = random.Random(0)
    for _ in range(300):
        body = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        if chance.random() < 0.3:
            del body[chance.randrange(len(body)) :]
        code = call.future(bytes(body)).code()
        expected = (CODES.OK, CODES.INVALID_ARGUMENT, CODES.NOT_FOUND, CODES.FAILED_PRECONDITION)
        assert code in expected, bytes(body)
    with pytest.raises(grpc.RpcError, match=r"Not a tensorflow\.serving\.PredictRequest"):
        call(b"\xff\xff")


def test_requests_over_the_limit(serve, publish, exports, tmp_path):
    publish(exports["first"], tmp_path, 1)
    server = serve(tmp_path, max_message_bytes=10_000)
    assert server.predict({"x": np.ones(2000, np.float32)}).outputs
    with pytest.raises(grpc.RpcError) as raised:
        server.predict({"x": np.ones(3000, np.float32)})
    assert raised.value.code() == CODES.RESOURCE_EXHAUSTED


def test_a_deadline_ends_the_wait(arithmetic, make_spec, tmp_path):
    request = request_for(make_spec(), "wait", path=str(tmp_path / "go"))
    try:
        with pytest.raises(grpc.RpcError) as raised:
            arithmetic.prediction.Predict(request, timeout=0.2)
        assert raised.value.code() == CODES.DEADLINE_EXCEEDED
    finally:
        (tmp_path / "go").touch()


def metadata_request(spec, *fields):
    return get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=fields)


def test_metadata(arithmetic, make_spec):
    response = arithmetic.prediction.GetModelMetadata(metadata_request(make_spec(), "signature_def"))
    assert (response.model_spec.name, response.model_spec.version.value) == ("model", 3)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    scaled = signatures.signature_def["serving_default"]
    assert set(scaled.inputs) == {"x", "scale"}
    assert scaled.defaults["scale"].float_val == [2.0]
    assert scaled.method_name == "tensorflow/serving/predict"


METADATA_ERRORS = {
    "no model_spec": (
        lambda spec: get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]),
        CODES.INVALID_ARGUMENT,
        "Missing ModelSpec",
    ),
    "no field": (
        lambda spec: metadata_request(spec()),
        CODES.INVALID_ARGUMENT,
        "GetModelMetadataRequest must specify at least one metadata_field",
    ),
    "unknown field": (
        lambda spec: metadata_request(spec(), "signature_def", "weights"),
        CODES.INVALID_ARGUMENT,
        "Metadata field weights is not supported",
    ),
    "empty name": (
        lambda spec: metadata_request(spec(name=""), "signature_def"),
        CODES.INVALID_ARGUMENT,
        "ModelSpec has no name specified.",
    ),
    "unknown model": (
        lambda spec: metadata_request(spec(name="nobody"), "signature_def"),
        CODES.NOT_FOUND,
        "Servable not found for request: Latest(nobody)",
    ),
    "unknown version": (
        lambda spec: metadata_request(spec(version=9), "signature_def"),
        CODES.NOT_FOUND,
        "Servable not found for request: Specific(model, 9)",
    ),
}


@pytest.mark.parametrize("case", METADATA_ERRORS)
def test_errors_of_metadata(arithmetic, make_spec, case):
    make_request, code, message = METADATA_ERRORS[case]
    with pytest.raises(grpc.RpcError) as raised:
        arithmetic.prediction.GetModelMetadata(make_request(make_spec))
    assert (raised.value.code(), raised.value.details()) == (code, message)
