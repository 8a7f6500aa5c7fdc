"""A zoo-serve process asked with the stock stubs: every RPC, and every error in the stock server's words."""

import json

import grpc
import pytest
from contract import MODELS, config_text
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from http_core import DEADLINE

from serving.messages import get_model_metadata_pb2, predict_pb2

CODES = grpc.StatusCode


def spec(name="model", **fields):
    """A model_spec in text format; `version` is a number, other fields are strings."""
    texts = [
        f"version {{ value: {value} }}" if field == "version" else f'{field}: "{value}"'
        for field, value in {"name": name, **fields}.items()
    ]
    return f"model_spec {{ {' '.join(texts)} }} "


def floats(alias, *values, sizes=None):
    """An input of float32 in text format."""
    dims = " ".join(f"dim {{ size: {size} }}" for size in sizes or [len(values)])
    numbers = " ".join(f"float_val: {value}" for value in values)
    return f'inputs {{ key: "{alias}" value {{ dtype: DT_FLOAT tensor_shape {{ {dims} }} {numbers} }} }} '


def examples(*numbers):
    """An Input of examples with a feature `x`."""
    each = (
        f'examples {{ features {{ feature {{ key: "x" value {{ float_list {{ value: {x} }} }} }} }} }}'
        for x in numbers
    )
    return f"input {{ example_list {{ {' '.join(each)} }} }} "


def task(method, signature, name="inference"):
    """A task of a MultiInferenceRequest."""
    return f'tasks {{ {spec(name, signature_name=signature)} method_name: "tensorflow/serving/{method}" }} '


def as_message(like, text):
    return text_format.Parse(text, type(like)())


class TestRpcs:
    def test_predict(self, contract):
        response = contract.ask("Predict", spec() + floats("x", 1, 2.5) + 'output_filter: "y"')
        value = "dtype: DT_FLOAT tensor_shape { dim { size: 2 } } float_val: 4 float_val: 7"
        assert response == as_message(
            response,
            f'outputs {{ key: "y" value {{ {value} }} }} '
            'model_spec { name: "model" version { value: 4 } signature_name: "serving_default" }',
        )

    @pytest.mark.parametrize(
        ("fields", "version", "y"),
        [
            ({}, 4, 4.0),
            ({"version": 3}, 3, 3.0),
            ({"version_label": "stable"}, 3, 3.0),
            ({"version_label": "canary"}, 4, 4.0),
        ],
    )
    def test_versions_and_labels(self, contract, fields, version, y):
        response = contract.ask("Predict", spec(**fields) + floats("x", 1))
        assert (response.model_spec.version.value, response.outputs["y"].float_val) == (version, [y])

    def test_shapes_are_not_checked_against_the_signature(self, contract):
        response = contract.ask("Predict", spec() + floats("x", 1, 2, sizes=[2, 1]))
        assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [2, 1]

    def test_classify(self, contract):
        response = contract.ask("Classify", spec("inference", signature_name="both") + examples(1, -3))
        classes = 'classifications { classes { label: "up" score: %d } classes { label: "down" score: %d } } '
        assert response == as_message(
            response,
            f"result {{ {classes % (2, -2)} {classes % (-6, 6)} }} "
            'model_spec { name: "inference" version { value: 5 } signature_name: "both" }',
        )

    def test_regress(self, contract):
        response = contract.ask("Regress", spec("inference", signature_name="numbers") + examples(1, -3))
        assert response == as_message(
            response,
            "result { regressions { value: 2 } regressions { value: -6 } } "
            'model_spec { name: "inference" version { value: 5 } signature_name: "numbers" }',
        )

    def test_multi_inference(self, contract):
        tasks = task("regress", "numbers") + task("classify", "classes")
        response = contract.ask("MultiInference", tasks + examples(1))
        version = 'model_spec { name: "inference" version { value: 5 } signature_name: "%s" }'
        classes = 'classifications { classes { label: "up" } classes { label: "down" } }'
        assert response == as_message(
            response,
            f"results {{ {version % 'numbers'} regression_result {{ regressions {{ value: 2 }} }} }} "
            f"results {{ {version % 'classes'} classification_result {{ {classes} }} }}",
        )

    def test_model_metadata(self, contract):
        response = contract.ask("GetModelMetadata", spec() + 'metadata_field: "signature_def"')
        named = 'name: "model" version { value: 4 }'
        assert response.model_spec == as_message(response.model_spec, named)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert response.metadata["signature_def"].Unpack(signatures)
        assert signatures.signature_def["serving_default"].defaults["scale"].float_val == [2.0]

    @pytest.mark.parametrize(
        ("fields", "versions"), [({}, [4, 3]), ({"version": 3}, [3]), ({"version_label": "no such"}, [4, 3])]
    )
    def test_model_status(self, contract, fields, versions):
        response = contract.ask("GetModelStatus", spec(**fields))
        expected = "model_version_status { version: %d state: AVAILABLE status {} }"
        assert response == as_message(response, " ".join(expected % version for version in versions))

    def test_reloading(self, contract, publish, exports):
        publish(exports["second"], contract.folder / "reloaded", 1)
        config = config_text(contract.folder, "reloaded")
        response = contract.ask("HandleReloadConfigRequest", f"config {{ {config} }}")
        assert response == as_message(response, "status {}")
        asked = spec("reloaded") + floats("x", 1)
        assert contract.ask("Predict", asked).outputs["y"].float_val == [4.0]
        contract.ask("HandleReloadConfigRequest", f"config {{ {config_text(contract.folder)} }}")
        assert contract.begin("Predict", asked).code() is CODES.NOT_FOUND

    def test_token_stream(self, contract):
        request = text_format.Parse(spec("language"), predict_pb2.PredictRequest())
        request.inputs["prompt"].dtype = 7  # string
        request.inputs["prompt"].tensor_shape.dim.add(size=1)
        request.inputs["prompt"].string_val.append(b"Say: ")
        with grpc.insecure_channel(contract.address) as channel:
            method = channel.unary_stream(
                "/rnn_zoo.serving.GenerationService/Generate",
                request_serializer=predict_pb2.PredictRequest.SerializeToString,
                response_deserializer=predict_pb2.PredictResponse.FromString,
            )
            responses = list(method(request, timeout=DEADLINE))
        said = b"".join(response.outputs["token"].string_val[0] for response in responses)
        assert (said.decode(), len(responses)) == ("déjà", 6)

    @pytest.mark.parametrize("service", ["", "ModelService", "PredictionService"])
    def test_health(self, contract, service):
        with grpc.insecure_channel(contract.address) as channel:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=DEADLINE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def test_reflection(self, contract):
        with grpc.insecure_channel(contract.address) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=DEADLINE)
        assert {service.name for service in answer.list_services_response.service} >= {
            "tensorflow.serving.PredictionService",
            "tensorflow.serving.ModelService",
            "rnn_zoo.serving.GenerationService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }


X, Z = floats("x", 1), floats("z", 1)
PLAIN = spec(signature_name="plain")
MALFORMED = (
    'inputs { key: "x" value { dtype: DT_FLOAT tensor_shape { dim { size: 1 } } tensor_content: "abc" } }'
)
DOUBLE = 'inputs { key: "x" value { dtype: DT_DOUBLE tensor_shape { dim { size: 1 } } double_val: 1 } }'
NONE, MANY = "input {}", floats("x", *range(20))


def reloading(*fields):
    models = " ".join(f"config {{ {each} }}" for each in fields)
    return f"config {{ model_config_list {{ {models} }} }}"


# RPC, request, code, message; what the table of errors has, in its order, and its neighbours.
ERRORS = [
    ("Predict", "", "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("Classify", "", "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("Regress", "", "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("MultiInference", "", "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("GetModelMetadata", "", "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("GetModelStatus", "", "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("Predict", "model_spec {}", "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ("Predict", spec("nobody") + X, "NOT_FOUND", "Servable not found for request: Latest(nobody)"),
    ("Predict", spec(version=9) + X, "NOT_FOUND", "Servable not found for request: Specific(model, 9)"),
    ("Predict", spec(version=2) + X, "NOT_FOUND", "Servable not found for request: Specific(model, 2)"),
    ("Predict", spec(version_label="L"), "INVALID_ARGUMENT", "Unrecognized servable version label: L"),
    (
        "Predict",
        spec(signature_name="S") + X,
        "FAILED_PRECONDITION",
        'Serving signature key "S" not found.',
    ),
    (
        "Classify",
        spec(signature_name="S") + examples(1),
        "INVALID_ARGUMENT",
        "No signature was found with the name: S",
    ),
    (
        "Regress",
        spec(signature_name="S") + examples(1),
        "INVALID_ARGUMENT",
        "No signature was found with the name: S",
    ),
    (
        "MultiInference",
        task("regress", "S") + examples(1),
        "INVALID_ARGUMENT",
        "Requested signature not found in model graph: S",
    ),
    (
        "Predict",
        PLAIN + X + Z,
        "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. "
        "Missing but required: {}.",
    ),
    (
        "Predict",
        PLAIN,
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. "
        "Missing but required: {x}.",
    ),
    (
        "Predict",
        PLAIN + Z,
        "INVALID_ARGUMENT",
        "Signature input alias: x(feed name: plain_x:0) not found in request and no default value provided. "
        "Inputs expected to be in the request {z}, or default input alias set: ",
    ),
    ("Predict", PLAIN + MALFORMED, "INVALID_ARGUMENT", "tensor parsing error: x"),
    (
        "Predict",
        PLAIN + X + 'output_filter: "q"',
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
    ),
    (
        "Predict",
        PLAIN + X + 'output_filter: "y" output_filter: "y"',
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: y",
    ),
    ("Predict", PLAIN + DOUBLE, "INVALID_ARGUMENT", "Expects arg[0] to be float but double is provided"),
    ("GetModelStatus", spec("nobody"), "NOT_FOUND", "Could not find any versions of model nobody"),
    ("GetModelStatus", spec(version=9), "NOT_FOUND", "Could not find version 9 of model model"),
    (
        "GetModelMetadata",
        spec(),
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    ),
    (
        "GetModelMetadata",
        spec() + 'metadata_field: "F"',
        "INVALID_ARGUMENT",
        "Metadata field F is not supported",
    ),
    ("Classify", spec("inference", signature_name="both") + NONE, "INVALID_ARGUMENT", "Input is empty."),
    ("Regress", spec("inference", signature_name="numbers") + NONE, "INVALID_ARGUMENT", "Input is empty."),
    ("MultiInference", task("regress", "numbers") + NONE, "INVALID_ARGUMENT", "Input is empty."),
    (
        "Predict",
        PLAIN + MANY,
        "INVALID_ARGUMENT",
        "Task size 20 is larger than maximum input batch size 8",
    ),
    (
        "Predict",
        spec(signature_name="S" * 2000) + X,
        "FAILED_PRECONDITION",
        ('Serving signature key "' + "S" * 2000)[:1024] + "...TRUNCATED",
    ),
    (
        "HandleReloadConfigRequest",
        reloading(*['name: "a" base_path: "/a" model_platform: "tensorflow"'] * 2),
        "INVALID_ARGUMENT",
        "Illegal to list model a multiple times in config list",
    ),
    (
        "HandleReloadConfigRequest",
        reloading('name: "a" base_path: "a" model_platform: "tensorflow"'),
        "INVALID_ARGUMENT",
        "Expected model a to have an absolute path or URI; got base_path()=a",
    ),
    (
        "HandleReloadConfigRequest",
        reloading('name: "model" base_path: "/a" model_platform: "other"'),
        "INVALID_ARGUMENT",
        "Illegal to change a model's platform. For model model platform was tensorflow and new platform "
        "requested is other",
    ),
    (
        "HandleReloadConfigRequest",
        reloading('name: "a" base_path: "/a" model_platform: "tensorflow" logging_config {}'),
        "INVALID_ARGUMENT",
        "No request-logger-creator provided.",
    ),
]


@pytest.mark.parametrize(("method", "request_text", "code", "message"), ERRORS)
def test_errors(contract, method, request_text, code, message):
    failed = contract.begin(method, request_text)
    assert (failed.code().name, failed.details()) == (code, message)


def test_the_queue_of_batches_can_be_full(contract, tmp_path, eventually):
    """Eight rows run and eight wait; no more can."""
    gate = tmp_path / "gate"
    strings = " ".join([f'string_val: "{gate}"'] * 8)
    value = f"dtype: DT_STRING tensor_shape {{ dim {{ size: 8 }} }} {strings}"
    request = spec("gate") + f'inputs {{ key: "path" value {{ {value} }} }}'
    try:
        calls = [contract.begin("Predict", request) for _ in range(3)]
        eventually(lambda: any(each.done() for each in calls))
        over_http = contract.http(
            "POST", "/v1/models/gate:predict", json.dumps({"instances": [str(gate)] * 8})
        )
    finally:
        gate.touch()
    (refused,) = [each for each in calls if each.code() is not CODES.OK]
    message = "The batch scheduling queue to which this task was submitted is full; 8 rows wait"
    assert (refused.code(), refused.details()) == (CODES.UNAVAILABLE, message)
    assert (over_http.status, json.loads(over_http.body)) == (503, {"error": message})


def test_all_models_are_served(contract):
    for name in MODELS:
        assert contract.ask("GetModelStatus", spec(name)).model_version_status[0].state == 30  # AVAILABLE
