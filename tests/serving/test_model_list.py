"""The list of models, over HTTP."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading

import grpc
import pytest

from serving.client import ServerError, models
from serving.client_results import ServedModel

CODES = grpc.StatusCode
TWO_MODELS = b"""{"models": [
    {"name": "a", "versions": [{"version": "2", "state": "AVAILABLE"}, {"version": "1", "state": "END"}]},
    {"name": "b/c", "versions": []}
]}"""


@contextlib.contextmanager
def http_server(status, body):
    """Answers everything so; gives its address, and the paths and tokens of requests."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", requests
        server.shutdown()


def test_models():
    with http_server(200, TWO_MODELS) as (address, requests):
        served = models(address)
        assert models(address, bearer_token="open sesame") == served
    assert served == [ServedModel("a", {2: "AVAILABLE", 1: "END"}), ServedModel("b/c", {})]
    assert requests == [("/v1/models", None), ("/v1/models", "Bearer open sesame")]


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (
            400,
            b'{"error": "Missing model\\nname in request."}',
            CODES.INVALID_ARGUMENT,
            "Missing model name in request.",
        ),
        (401, b'{"error": "who?"}', CODES.UNAUTHENTICATED, "who?"),
        (404, b"<html>", CODES.NOT_FOUND, "that is no list of models"),
        (500, b'{"error": 3}', CODES.UNKNOWN, "that is no list of models"),
        (200, b"[]", CODES.UNKNOWN, "that is no list of models"),
        (200, b'{"models": [{"name": "a"}]}', CODES.UNKNOWN, "that is no list of models"),
        (200, b"\xff", CODES.UNKNOWN, "that is no list of models"),
    ],
)
def test_a_server_that_gives_no_list(status, body, code, message):
    with http_server(status, body) as (address, _), pytest.raises(ServerError) as error:
        models(address)
    assert (error.value.code, str(error.value)) == (code, f"{address} refused: HTTP {status}: {message}")


def test_a_server_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(ServerError) as error:
        models(address)
    assert error.value.code is CODES.UNAVAILABLE
    assert str(error.value).startswith(
        f"no server answers HTTP at {address}; has zoo-serve that --rest_api_port?"
    )


def test_a_server_that_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServerError) as error:
            models(address, timeout_s=0.2)
    assert error.value.code is CODES.DEADLINE_EXCEEDED
    assert str(error.value) == f"{address} gave no answer within 0.2 s; --timeout_s=N waits longer"


def test_what_speaks_no_http():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def speak():
            connection, _ = server.accept()
            connection.sendall(b"\x00\x00\x12\x04 what?\r\n\r\n")
            connection.close()

        threading.Thread(target=speak, daemon=True).start()
        with pytest.raises(ServerError) as error:
            models(address)
    assert error.value.code is CODES.UNAVAILABLE
