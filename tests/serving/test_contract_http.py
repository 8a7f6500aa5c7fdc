"""A zoo-serve process asked over HTTP: every endpoint, and errors in the stock server's words."""

import gzip
import json

import pytest
from contract import METRICS_PATH, MODELS


def predict(server, model, body, **headers):
    """What there is at :predict; it has to be there."""
    answer = server.http("POST", f"/v1/models/{model}:predict", body, **headers)
    assert answer.status == 200, answer.body
    return answer.body.decode()


def error(message):
    return f'{{\n    "error": {json.dumps(message)}\n}}'


@pytest.mark.parametrize(
    ("path", "versions"),
    [("", [4, 3]), ("/versions/3", [3]), ("/versions/0003", [3]), ("/labels/no-such", [4, 3])],
)
def test_status(contract, path, versions):
    answer = contract.http("GET", f"/v1/models/model{path}")
    state = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    expected = {"model_version_status": [{"version": str(version), **state} for version in versions]}
    assert (answer.status, json.loads(answer.body)) == (200, expected)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(("path", "version"), [("", "4"), ("/versions/3", "3"), ("/labels/stable", "3")])
def test_metadata(contract, path, version):
    answer = contract.http("GET", f"/v1/models/model{path}/metadata")
    found = json.loads(answer.body)
    assert (answer.status, found["model_spec"]["version"]) == (200, version)
    x = found["metadata"]["signature_def"]["signature_def"]["plain"]["inputs"]["x"]
    assert x == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": "plain_x:0",
    }


def test_list_of_models(contract):
    answer = contract.http("GET", "/v1/models")
    listed = {model["name"]: model["versions"] for model in json.loads(answer.body)["models"]}
    assert set(listed) == set(MODELS)
    assert listed["model"] == [{"version": n, "state": "AVAILABLE"} for n in ("4", "3")]


def test_health(contract):
    answer = contract.http("GET", "/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")


PLAIN = '{"signature_name": "plain", %s}'


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        # Rows and columns; the name of an only output is omitted.
        ("model", PLAIN % '"instances": [1, 2.5]', '"predictions": [3.0, 4.5\n    ]'),
        ("model", PLAIN % '"instances": [{"x": 1}]', '"predictions": [3.0\n    ]'),
        ("model", PLAIN % '"inputs": [1, 2.5]', '"outputs": [\n        3.0,\n        4.5\n    ]'),
        ("model", PLAIN % '"inputs": {"x": [1], "z": 2}', '"outputs": [\n        3.0\n    ]'),
        (
            "model",
            '{"instances": [{"x": 1}, {"x": 2}]}',
            '"predictions": [\n        {\n            "x_again": 1.0,\n            "y": 4.0\n        },'
            '\n        {\n            "x_again": 2.0,\n            "y": 6.0\n        }\n    ]',
        ),
        # Which version.
        ("model/versions/3", PLAIN % '"instances": [1]', '"predictions": [2.0\n    ]'),
        ("model/labels/stable", PLAIN % '"instances": [1]', '"predictions": [2.0\n    ]'),
        # Numbers that JSON has not; bytes; what is ignored.
        (
            "model",
            PLAIN % '"instances": [NaN, Infinity, -Infinity]',
            '"predictions": [NaN, Infinity, -Infinity\n    ]',
        ),
        (
            "model",
            '{"signature_name": "number", "inputs": [{"b64": "MS41"}, "2"]}',
            '"outputs": {\n        "number": [\n            1.5,\n            2.0\n        ],'
            '\n        "text": [\n            "1.5",\n            "2"\n        ]\n    }',
        ),
        (
            "gate",
            '{"instances": [{"b64": "Lw=="}]}',
            '"predictions": [{\n            "b64": "Lw=="\n        }\n    ]',
        ),
        ("model", PLAIN % '"instances": [1], "other": {}' + " and more", '"predictions": [3.0\n    ]'),
    ],
)
def test_predict(contract, model, body, expected):
    assert predict(contract, model, body) == f"{{\n    {expected}\n}}"


def test_paths_are_case_insensitive(contract):
    answer = contract.http("POST", "/V1/Models/model/Versions/3:Predict", PLAIN % '"instances": [1]')
    assert (answer.status, answer.body) == (200, b'{\n    "predictions": [2.0\n    ]\n}')


def test_bodies_may_be_compressed(contract):
    body = gzip.compress((PLAIN % '"instances": [1]').encode())
    assert predict(contract, "model", body, Content_Encoding="gzip") == '{\n    "predictions": [3.0\n    ]\n}'


@pytest.mark.parametrize("path", ["", "/versions/5"])
def test_classify(contract, path):
    body = '{"signature_name": "both", "examples": [{"x": 1.0}, {"x": [-3.0]}]}'
    answer = contract.http("POST", f"/v1/models/inference{path}:classify", body)
    rows = '[["up", 2.0], ["down", -2.0]], [["up", -6.0], ["down", 6.0]]'
    assert (answer.status, answer.body.decode()) == (200, f'{{\n    "results": [{rows}\n    ]\n}}')


def test_regress(contract):
    body = '{"signature_name": "numbers", "context": {"offset": 0.5}, "examples": [{"x": 1.0}, {"x": 2.0}]}'
    answer = contract.http("POST", "/v1/models/inference:regress", body)
    assert (answer.status, answer.body) == (200, b'{\n    "results": [2.5, 4.5]\n}')


def test_generate(contract):
    answer = contract.http("POST", "/v1/models/language:generate", '{"prompt": "", "max_new_tokens": 3}')
    assert answer.status == 200
    *events, done, end = answer.body.decode().split("\n\n")
    texts = [json.loads(event.removeprefix("data: "))["text"] for event in events]
    assert (texts, done, end) == (["d", "", "é"], "data: [DONE]", "")


def test_completions(contract):
    body = '{"model": "language", "prompt": "", "max_tokens": 4}'
    answer = contract.http("POST", "/v1/completions", body)
    assert (answer.status, json.loads(answer.body)["choices"][0]["text"]) == (200, "déj"), answer.body


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/models/model", "/monitoring/prometheus/metrics"])
def test_other_paths(contract, path):
    answer = contract.http("GET", path)
    assert (answer.status, answer.body) == (404, b"")


ROW = "Failed to process element: %s of 'instances' list. %s"
ONE = '{"instances": [1]}'
ERRORS = [
    ("GET", "/v1/foo", None, 400, "Malformed request: GET /v1/foo"),
    ("POST", "/v1/models/model", ONE, 400, "Malformed request: POST /v1/models/model"),
    ("GET", "/v1/models/model:predict", None, 400, "Malformed request: GET /v1/models/model:predict"),
    ("GET", "/v1/models/versions/3", None, 400, "Missing model name in request."),
    ("GET", "/v1/models/M", None, 404, "Could not find any versions of model M"),
    ("GET", "/v1/models/model/versions/9", None, 404, "Could not find version 9 of model model"),
    ("GET", "/v1/models/M/metadata", None, 404, "Servable not found for request: Latest(M)"),
    ("POST", "/v1/models/M:predict", ONE, 404, "Servable not found for request: Latest(M)"),
    (
        "POST",
        "/v1/models/model/versions/9:predict",
        ONE,
        404,
        "Servable not found for request: Specific(model, 9)",
    ),
    ("POST", "/v1/models/model/labels/L:predict", ONE, 400, "Unrecognized servable version label: L"),
    (
        "POST",
        "/v1/models/model:predict",
        '{"signature_name": "S", "instances": [1]}',
        400,
        'Serving signature name: "S" not found in signature def',
    ),
    (
        "POST",
        "/v1/models/inference:classify",
        '{"signature_name": "S", "examples": [{}]}',
        400,
        "No signature was found with the name: S",
    ),
    ("POST", "/v1/models/model:predict", "", 400, "JSON Parse error: The document is empty"),
    ("POST", "/v1/models/model:predict", "{}", 400, "Missing 'inputs' or 'instances' key"),
    ("POST", "/v1/models/model:predict", '{"inputs": {}}', 400, "Missing named input: x in 'inputs' object."),
    (
        "POST",
        "/v1/models/model:predict",
        '{"signature_name": "plain", "instances": [{"x": 1}, {"x": "a"}]}',
        400,
        ROW
        % (
            "1 key: x",
            'Error: INVALID_ARGUMENT: JSON Value: "a" Type: String is not of expected type: float',
        ),
    ),
    (
        "POST",
        "/v1/models/model:predict",
        '{"signature_name": "plain", "instances": [{}]}',
        400,
        ROW % ("0", "JSON object: {} keys must be equal to: x"),
    ),
    (
        "POST",
        "/v1/models/inference:regress",
        '{"examples": []}',
        400,
        "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array",
    ),
    (
        "POST",
        "/v1/models/model:predict",
        json.dumps({"signature_name": "plain", "instances": [1] * 20}),
        400,
        "Task size 20 is larger than maximum input batch size 8",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "message"), ERRORS)
def test_errors(contract, method, path, body, status, message):
    answer = contract.http(method, path, body)
    assert (answer.status, answer.body.decode()) == (status, error(message))
    assert answer.headers["content-type"] == "application/json"


def test_metrics(contract):
    predict(contract, "model", PLAIN % '"instances": [1]')
    answer = contract.http("GET", METRICS_PATH)
    assert answer.status == 200
    lines = answer.body.decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    counts = ':tensorflow:serving:request_count{model_name="model",status="OK"}'
    latency = ':tensorflow:serving:request_latency_count{model_name="model",API="predict",entrypoint="REST"}'
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert float(values[counts]) >= float(values[latency]) >= 1
