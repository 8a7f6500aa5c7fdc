"""Streams of tokens over real sockets."""

import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving.generation import SERVICE, StreamLimits
from serving.messages import predict_pb2

CODES = grpc.StatusCode
DEADLINE = 60
SPELLED = "déjà vu, encore".encode()


@pytest.fixture
def generate(language, make_spec):
    """Calls the RPC as stock messages over a plain channel; inputs are arrays."""

    def call(inputs, server=language, **spec):
        method = server.channel.unary_stream(
            f"/{SERVICE.full_name}/Generate",
            request_serializer=predict_pb2.PredictRequest.SerializeToString,
            response_deserializer=predict_pb2.PredictResponse.FromString,
        )
        request = predict_pb2.PredictRequest(model_spec=make_spec(**spec))
        for alias, value in inputs.items():
            request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
        return method(request, timeout=DEADLINE)

    return call


def arrays(message):
    return {alias: tf.make_ndarray(proto) for alias, proto in message.outputs.items()}


def prompt(**inputs):
    return {"prompt": [b"Say"], **{alias: np.array(value) for alias, value in inputs.items()}}


def int32(*values):
    return np.array(values, np.int32)


def test_a_text_token_by_token(generate):
    messages = list(generate(prompt(max_new_tokens=int32(100))))
    assert len(messages) == len(SPELLED)
    outputs = [arrays(message) for message in messages]
    assert b"".join(each["token"][0] for each in outputs) == SPELLED
    assert [each["token_id"].tolist() for each in outputs] == [[n] for n in range(len(SPELLED))]
    assert [each["done"].tolist() for each in outputs] == [[False]] * (len(SPELLED) - 1) + [[True]]
    assert all(each["log_prob"].tolist() == [-1.0] for each in outputs)
    assert messages[0].model_spec.name == "model"
    assert messages[0].model_spec.version.value == 7


@pytest.mark.parametrize(
    ("inputs", "sizes"),
    [
        ({}, [1] * 6),  # the default of `generate`
        ({"max_new_tokens": int32(0)}, []),
        ({"max_new_tokens": int32(7), "tokens_per_message": int32(3)}, [3, 3, 1]),
        ({"max_new_tokens": int32(100), "tokens_per_message": int32(8)}, [8, 8, 1]),
    ],
)
def test_how_many_tokens_come_and_in_which_pieces(generate, inputs, sizes):
    assert [len(arrays(message)["token"]) for message in generate(prompt(**inputs))] == sizes


def test_settings_are_those_of_the_signature_step(generate):
    inputs = {"temperature": np.float32([0.5]), "seed": int32([7, 3]), "max_new_tokens": int32(3)}
    outputs = [arrays(message) for message in generate(prompt(**inputs))]
    assert [each["token"][0] for each in outputs] == [b"<7><3>", b"<7><4>", b"<7><5>"]
    assert [each["log_prob"].tolist() for each in outputs] == [[-0.5]] * 3


@pytest.mark.parametrize(
    ("inputs", "spec", "code", "message"),
    [
        ({}, {}, CODES.INVALID_ARGUMENT, "prompt is missing"),
        (prompt(), {"name": "other"}, CODES.NOT_FOUND, "Servable not found for request: Latest(other)"),
        (prompt(), {"version": 9}, CODES.NOT_FOUND, "Servable not found for request: Specific(model, 9)"),
        (
            prompt(top_k=int32(1)),
            {},
            CODES.INVALID_ARGUMENT,
            "unknown inputs top_k; there are max_new_tokens, prompt, seed, temperature",
        ),
        (prompt(state=np.float32([[0]])), {}, CODES.INVALID_ARGUMENT, "unknown inputs state; "),
        (
            {"prompt": [b"a", b"b"]},
            {},
            CODES.INVALID_ARGUMENT,
            "prompt is string [2], and has to be string [1]",
        ),
        ({"prompt": b"a"}, {}, CODES.INVALID_ARGUMENT, "prompt is string [], and has to be string [1]"),
        (
            prompt(temperature=np.float64([1])),
            {},
            CODES.INVALID_ARGUMENT,
            "temperature is double [1], and has to be float [1]",
        ),
        (prompt(seed=int32(1)), {}, CODES.INVALID_ARGUMENT, "seed is int32 [1], and has to be int32 [1, 2]"),
        (
            prompt(tokens_per_message=int32(0)),
            {},
            CODES.INVALID_ARGUMENT,
            "tokens_per_message is 0, and has to be at least 1",
        ),
        (
            prompt(max_new_tokens=int32(4097)),
            {},
            CODES.INVALID_ARGUMENT,
            "max_new_tokens is 4097, and has to be between 0 and 4096",
        ),
        (prompt(max_new_tokens=int32(-1)), {}, CODES.INVALID_ARGUMENT, "max_new_tokens is -1, and has"),
    ],
)
def test_what_is_wrong_is_said(generate, inputs, spec, code, message):
    with pytest.raises(grpc.RpcError) as raised:
        list(generate(inputs, **spec))
    assert raised.value.code() == code
    assert raised.value.details().startswith(message)


def test_a_model_without_steps(generate, arithmetic):
    with pytest.raises(grpc.RpcError) as raised:
        list(generate(prompt(), server=arithmetic))
    assert raised.value.code() == CODES.FAILED_PRECONDITION
    assert raised.value.details() == 'Serving signature key "start" not found.'


def test_bytes_that_are_no_request(language):
    method = language.channel.unary_stream(f"/{SERVICE.full_name}/Generate")
    with pytest.raises(grpc.RpcError) as raised:
        list(method(b"\xff\xff", timeout=DEADLINE))
    assert raised.value.code() == CODES.INVALID_ARGUMENT
    assert raised.value.details() == "Not a tensorflow.serving.PredictRequest"


@pytest.fixture
def endless(serve, publish, exports, tmp_path):
    """Starts a server of a language model that never ends."""

    def start(**limits):
        publish(exports["endless"], tmp_path, 1)
        return serve(tmp_path, limits=StreamLimits(**limits))

    return start


def endlessly(generate, server, tokens=4096):
    return generate(prompt(max_new_tokens=int32(tokens)), server=server)


def test_a_client_that_goes_away_frees_its_slot(generate, endless, eventually):
    server = endless(max_streams=1)
    stream = endlessly(generate, server)
    next(stream)
    with pytest.raises(grpc.RpcError) as raised:
        next(endlessly(generate, server))
    assert raised.value.code() == CODES.UNAVAILABLE
    assert raised.value.details() == "all 1 streams are in use"
    stream.cancel()

    def is_free():
        try:
            return list(endlessly(generate, server, 1))
        except grpc.RpcError as error:
            return error.code() != CODES.UNAVAILABLE

    eventually(is_free)


def test_a_client_that_does_not_read_is_cut_off_in_time(generate, endless, eventually):
    """And meanwhile it holds up nobody."""
    server = endless(max_seconds=5.0, max_tokens=10**6)
    idle = endlessly(generate, server, 10**6)
    next(idle)
    assert len(list(endlessly(generate, server, 200))) == 200
    with pytest.raises(grpc.RpcError) as raised:
        list(idle)
    assert raised.value.code() == CODES.DEADLINE_EXCEEDED
    assert raised.value.details() == "a stream lasts at most 5 s"
    eventually(lambda: not server.server._generator._open)


def test_many_streams_at_once(generate, endless):
    server = endless()
    results = {}

    def read(name):
        results[name] = [int(arrays(message)["token"][0]) for message in endlessly(generate, server, 200)]

    threads = [threading.Thread(target=read, args=(name,)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert results == {name: list(range(200)) for name in range(16)}


def test_stopping_waits_for_streams(generate, endless):
    server = endless()
    stream = endlessly(generate, server, 500)
    next(stream)
    stopper = threading.Thread(target=server.server.stop, args=(DEADLINE,))
    stopper.start()
    assert len(list(stream)) == 499
    stopper.join(DEADLINE)
    assert not stopper.is_alive()


def test_reflection_describes_the_service(language):
    stub = reflection_pb2_grpc.ServerReflectionStub(language.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE.full_name),
    ]
    services, file = stub.ServerReflectionInfo(iter(requests), timeout=DEADLINE)
    names = {service.name for service in services.list_services_response.service}
    assert {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "rnn_zoo.serving.GenerationService",
        "grpc.health.v1.Health",
    } <= names
    assert b"tensorflow_serving/apis/predict.proto" in b"".join(
        file.file_descriptor_response.file_descriptor_proto
    )
