"""The HTTP API through a real socket: paths, answers and errors of the stock server."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading

import grpc
import numpy as np
import pytest
from http_core import DEADLINE, Core, served

from serving import json_requests, json_results, json_text, rest


@pytest.fixture(scope="module")
def core():
    return Core()


@pytest.fixture(scope="module")
def api(core):
    with served(rest.application(core, core, core, rest.Settings())) as server:
        yield server


ONE = '{"instances": [1]}'
NINES = "9" * 5000


def error(message):
    return f'{{\n    "error": {json.dumps(message)}\n}}'.encode()


@pytest.mark.parametrize("path", ["/v1/models/m:predict", "/V1/Models/m:Predict", "/v1/models/m:predict?a=b"])
def test_rows(api, path):
    answer = api.ask("POST", path, '{"instances": [1, 2.5, NaN]}')
    assert (answer.status, answer.body) == (200, b'{\n    "predictions": [3.0, 6.0, NaN\n    ]\n}')
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.body)


def test_columns(api):
    answer = api.ask("POST", "/v1/models/m:predict", '{"inputs": {"x": [1, 2], "scale": 10}}')
    assert (answer.status, answer.body) == (
        200,
        b'{\n    "outputs": [\n        11.0,\n        21.0\n    ]\n}',
    )


def test_several_outputs(api):
    body = '{"signature_name": "words", "instances": [{"b64": "/w=="}, "\\u00e4"]} and more'
    answer = api.ask("POST", "/v1/models/m:predict", body)
    assert answer.status == 200
    assert answer.body.decode() == (
        '{\n    "predictions": [\n        {\n            "length": 1,\n            "text": {\n'
        '                "b64": "/w=="\n            }\n        },\n        {\n            "length": 2,\n'
        '            "text": "ä"\n        }\n    ]\n}'
    )


def test_classify(api):
    answer = api.ask("POST", "/v1/models/m:classify", '{"examples": [{"text": "a"}, {"text": ["b"]}]}')
    assert (answer.status, answer.body) == (
        200,
        b'{\n    "results": [[["a", 0.2]], [["b", 0.2]]\n    ]\n}',
    )


def test_regress(api):
    body = '{"context": {"bias": 0.5}, "examples": [{"x": 3.0}, {"x": 4.0}]}'
    answer = api.ask("POST", "/v1/models/m:regress", body)
    assert (answer.status, answer.body) == (200, b'{\n    "results": [3.5, 4.5]\n}')


@pytest.mark.parametrize(
    ("path", "name", "version", "label"),
    [
        ("m", "m", None, ""),
        ("m/versions/3", "m", 3, ""),
        ("m/versions/0003", "m", 3, ""),
        ("m/labels/stable", "m", None, "stable"),
        ("m/LABELS/st%61ble", "m", None, "stable"),
        ("a%2Fb%3ac", "a/b:c", None, ""),
    ],
)
@pytest.mark.parametrize("verb", [":predict", ":classify", ":regress", "/metadata", ""])
def test_models_versions_and_labels(api, core, path, name, version, label, verb):
    example = {"examples": [{"x": 1.0, "text": "a"}], "context": {"bias": 1.0}, "instances": [1]}
    if verb == ":classify":
        del example["context"]
    core.specs.clear()
    if verb.startswith(":"):
        answer = api.ask("POST", f"/v1/models/{path}{verb}", json.dumps(example))
    else:
        answer = api.ask("GET", f"/v1/models/{path}{verb}")
    assert answer.status == 200, answer.body
    assert core.specs
    for spec in core.specs:
        assert (spec.name, spec.version_label) == (name, label)
        assert spec.HasField("version") == (version is not None)
        assert spec.version.value == (version or 0)


def test_status(api):
    version = '  {\n   "version": "%d",\n   "state": "AVAILABLE",\n   "status": {\n    "error_code": "OK",\n'
    version += '    "error_message": ""\n   }\n  }'
    answer = api.ask("GET", "/v1/models/m")
    assert answer.headers["content-type"] == "application/json"
    both = f'{{\n "model_version_status": [\n{version % 4},\n{version % 3}\n ]\n}}\n'
    assert (answer.status, answer.body.decode()) == (200, both)
    answer = api.ask("GET", "/v1/models/m/versions/3")
    assert answer.body.decode() == f'{{\n "model_version_status": [\n{version % 3}\n ]\n}}\n'


def test_metadata(api):
    answer = api.ask("GET", "/v1/models/m/metadata")
    assert answer.status == 200
    assert answer.body.startswith(
        b'{\n"model_spec":{\n "name": "m",\n "signature_name": ""\n}\n,\n"metadata"'
    )
    signatures = json.loads(answer.body)["metadata"]["signature_def"]["signature_def"]
    assert signatures["words"]["inputs"]["text"]["dtype"] == "DT_STRING"


def test_what_is_served(api):
    versions = [{"version": "4", "state": "AVAILABLE"}, {"version": "3", "state": "AVAILABLE"}]
    answer = api.ask("GET", "/v1/models")
    assert answer.status == 200
    assert json.loads(answer.body) == {
        "models": [
            {"name": "a/b:c", "versions": versions},
            {"name": "m", "versions": versions},
            {"name": "not yet", "versions": []},
        ]
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/foo"),
        ("POST", "/v1/foo"),
        ("GET", "/v1/"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/debug/name"),
        ("POST", "/v1/models"),
        ("POST", "/v1/models/m"),
        ("GET", "/v1/models/m:predict"),
        ("PUT", "/v1/models/m:predict"),
        ("DELETE", "/v1/models/m"),
        ("POST", "/v1/models/m/metadata"),
        ("POST", "/v1/models/m/version/50:predict"),
        ("POST", "/v1/models/m/versions/HELLO:regress"),
        ("POST", "/v1/models/m/versions/50/labels/stable:regress"),
        ("POST", "/v1/models/m:predict:predict"),
        ("GET", "/v1/models/m?query/metadata"),
        ("GET", "/v1/models/a%0Ab/c"),
    ],
)
def test_malformed_requests(api, method, path):
    answer = api.ask(method, path)
    if path == "/v1/models/m?query/metadata":  # the query does not count
        assert answer.status == 200
        return
    assert (answer.status, answer.body) == (400, error(f"Malformed request: {method} {path}"))
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/models/m", "/index.html", "/v1models", "//v1/models", "/%0A"]
)
def test_other_paths(api, path):
    answer = api.ask("GET", path)
    assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "nobody", None, 404, "Could not find any versions of model nobody"),
        ("GET", "nobody/metadata", None, 404, "Servable not found for request: Latest(nobody)"),
        ("GET", "versions/3", None, 400, "Missing model name in request."),
        ("POST", "nobody:predict", ONE, 404, "Servable not found for request: Latest(nobody)"),
        ("POST", "nobody:predict", "", 400, "JSON Parse error: The document is empty"),
        ("POST", "m:predict", "{]", 400, "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("POST", "m:classify", '{"examples": [1]}', 400, "Example must be JSON object but got JSON Number"),
        ("POST", "m/labels/x:predict", ONE, 400, "Unrecognized servable version label: x"),
        (
            "POST",
            "m:predict",
            '{"signature_name": "zz"}',
            400,
            'Serving signature name: "zz" not found in signature def',
        ),
        ("POST", f"m/versions/{2**63}:predict", "", 400, f"Failed to convert version: {2**63} to numeric."),
        ("GET", f"m/versions/{NINES}", None, 400, f"Failed to convert version: {NINES} to numeric."),
    ],
)
def test_errors(api, method, path, body, status, message):
    answer = api.ask(method, f"/v1/models/{path}", body)
    assert (answer.status, answer.body) == (status, error(message))


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("INVALID_ARGUMENT", 400),
        ("FAILED_PRECONDITION", 400),
        ("OUT_OF_RANGE", 400),
        ("UNAUTHENTICATED", 401),
        ("PERMISSION_DENIED", 403),
        ("NOT_FOUND", 404),
        ("ALREADY_EXISTS", 409),
        ("ABORTED", 409),
        ("RESOURCE_EXHAUSTED", 429),
        ("CANCELLED", 499),
        ("UNKNOWN", 500),
        ("INTERNAL", 500),
        ("DATA_LOSS", 500),
        ("UNIMPLEMENTED", 501),
        ("UNAVAILABLE", 503),
        ("DEADLINE_EXCEEDED", 504),
    ],
)
def test_codes(api, code, status):
    name = code.lower()
    answer = api.ask("POST", "/v1/models/m:predict", json.dumps({"signature_name": name, "instances": [1]}))
    assert (answer.status, answer.body) == (status, error(f"{name} as asked for"))


def test_messages_that_quote_bytes(api):
    answer = api.ask("POST", "/v1/models/m:predict", b'{"instances": ["\xff\xc3\xa4"]}')
    assert answer.status == 400
    assert 'JSON Value: "?ä" Type: String is not' in json.loads(answer.body)["error"]


def test_bugs_are_not_told_to_callers(api):
    answer = api.ask("POST", "/v1/models/m:predict", '{"signature_name": "bug", "instances": [1]}')
    message = "POST /v1/models/m:predict failed; the server's log says why"
    assert (answer.status, answer.body) == (500, error(message))


def test_a_request_that_takes_too_long():
    core = Core()
    with served(rest.application(core, core, core, rest.Settings(timeout_seconds=0.05))) as api:
        answer = api.ask("POST", "/v1/models/m:predict", '{"signature_name": "wait", "instances": [1]}')
        assert (answer.status, answer.body) == (504, error("The request took longer than 0.05 s"))
        assert core.cancelled.wait(DEADLINE)
        assert api.ask("POST", "/v1/models/m:predict", '{"instances": [1]}').status == 200


def test_a_request_whose_caller_has_gone_is_given_up(api, core):
    body = b'{"signature_name": "wait", "instances": [1]}'
    with api.connect() as connection:
        head = f"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert core.waiting.wait(DEADLINE)
        assert not core.cancelled.is_set()
    assert core.cancelled.wait(DEADLINE)


def test_requests_are_observed():
    seen = []
    observed = threading.Semaphore(0)

    def observe(method, request, code, seconds):
        assert seconds > 0
        seen.append((method, request.model_spec.name if request else None, code))
        observed.release()

    core = Core()
    with served(rest.application(core, core, core, rest.Settings(observe=observe))) as api:
        for method, path in (
            ("POST", "/v1/models/m:predict"),
            ("POST", "/v1/models/m:Classify"),
            ("GET", "/v1/models/m/metadata"),
            ("GET", "/v1/models/nobody"),
            ("GET", "/v1/models"),
            ("GET", "/v1/foo"),
        ):
            api.ask(method, path, ONE if method == "POST" else None)
            assert observed.acquire(timeout=DEADLINE)
        api.ask("GET", "/healthz")
    assert seen == [
        ("predict", "m", grpc.StatusCode.OK),
        ("classify", "m", grpc.StatusCode.INVALID_ARGUMENT),
        ("", "m", grpc.StatusCode.OK),
        ("", "nobody", grpc.StatusCode.NOT_FOUND),
        ("", "", grpc.StatusCode.OK),
        ("", None, grpc.StatusCode.INVALID_ARGUMENT),
    ]


@pytest.mark.parametrize(("count", "in_loop"), [(10, True), (60_000, False)])
def test_what_is_large_is_converted_beside_the_event_loop(api, core, monkeypatch, count, in_loop):
    threads = {}

    def recorded(name, function):
        def call(*arguments):
            threads[name] = threading.get_ident()
            return function(*arguments)

        return call

    modules = {"parse": json_text, "predict_request": json_requests, "predictions": json_results}
    for name, module in modules.items():
        monkeypatch.setattr(module, name, recorded(name, getattr(module, name)))
    monkeypatch.setattr(core, "signature", recorded("signature", core.signature))
    values = np.random.default_rng(0).normal(size=count).astype(np.float32)
    body = json.dumps({"instances": values.astype(float).tolist()})
    answer = api.ask("POST", "/v1/models/m:predict", body)
    np.testing.assert_array_equal(
        np.array(json.loads(answer.body)["predictions"], np.float32), np.float32(2) * values + np.float32(1)
    )
    loop = threads.pop("signature")
    assert threads.keys() == modules.keys()
    assert all((thread == loop) == in_loop for thread in threads.values())


PIECES = [
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b",",
    b":",
    b"null",
    b"true",
    b"1",
    b"-",
    b"\\u",
    b"\xff",
    b"\0",
    b"2e3",
]


def mutated(chance):
    """A body that is one of several kinds of wrong, or right after all."""
    valid = [
        b'{"instances": [1, 2.5, -3e-2]}',
        b'{"instances": [{"x": [1], "scale": [2]}, {"x": [3], "scale": [4]}]}',
        b'{"inputs": {"x": [[1, NaN]], "scale": 2}, "signature_name": "serving_default"}',
        b'{"signature_name": "words", "instances": ["a", {"b64": "aGk="}, "\\ud83d\\ude00"]}',
        b'{"examples": [{"text": "a", "x": 1.5}, {"text": ["b"], "x": [2.5, 1]}]}',
    ]
    kind = chance.random()
    if kind < 0.05:
        return chance.randbytes(chance.randint(0, 60))
    if kind < 0.1:
        opening = chance.choice([b"[", b'{"a":', b'{"instances": ', b"[[1],"])
        return opening * chance.choice([3, 70, 5000])
    body = bytearray(chance.choice(valid))
    if kind < 0.25:
        number = chance.choice(
            [b"1e999", b"9" * 20, b"-" + b"9" * 6000, b"1" + b"0" * 400, b"-0", b"1e-9999"]
        )
        place = chance.choice([index for index, byte in enumerate(body) if chr(byte) in "12345"] or [0])
        body[place : place + 1] = number
        return bytes(body)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(body))
        change = chance.random()
        if change < 0.3:
            del body[place : place + chance.randint(1, 5)]
        elif change < 0.7:
            body[place:place] = chance.choice(
                [
                    b"[",
                    b"]",
                    b"{",
                    b"}",
                    b'"',
                    b",",
                    b":",
                    b"null",
                    b"true",
                    b"1",
                    b"-",
                    b"\\u",
                    b"\xff",
                    b"\0",
                    b"1.5e3",
                ]
            )
        else:
            body[place] = chance.randrange(256)
        body = body or bytearray(b" ")
    return bytes(body)


def test_no_body_makes_the_server_fail(api):
    chance = random.Random(0)
    outcomes = set()
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", api.port, timeout=DEADLINE)
    ) as connection:
        for _ in range(800):
            body = mutated(chance)
            verb = chance.choices(["predict", "classify", "regress"], [4, 1, 1])[0]
            connection.request("POST", f"/v1/models/m:{verb}", body)
            response = connection.getresponse()
            answer = json.loads(response.read())
            outcomes.add(response.status)
            if response.status != 200:
                assert response.status < 500, (verb, body, answer)
                assert list(answer) == ["error"]
                assert isinstance(answer["error"], str)
    assert outcomes == {200, 400}
