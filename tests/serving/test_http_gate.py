"""What HTTP requests pass before they are answered, through a real socket."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import tracemalloc
import zlib

import grpc
import pytest
from http_core import DEADLINE, Core, served
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from serving import rest
from serving.rpc import StatusError

PREDICT = "/v1/models/m:predict"
ONE = b'{"instances": [1]}'
PREDICTIONS = b'{\n    "predictions": [3.0\n    ]\n}'
LIMIT = 1000


def application(routes=(), **settings):
    core = Core()
    return rest.application(core, core, core, rest.Settings(**settings), routes)


@pytest.fixture(scope="module")
def small():
    """An API that takes bodies of at most LIMIT bytes."""
    with served(application(max_body_bytes=LIMIT)) as server:
        yield server


def padded(size):
    return ONE + b" " * (size - len(ONE))


def error(answer):
    content = json.loads(answer.body)
    assert list(content) == ["error"]
    return content["error"]


def test_bodies_up_to_the_limit(small):
    assert small.ask("POST", PREDICT, padded(LIMIT)).body == PREDICTIONS
    answer = small.ask("POST", PREDICT, padded(LIMIT + 1))
    assert (answer.status, error(answer)) == (413, "The request body is larger than 1000 bytes")


def chunks(connection, *parts):
    connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for part in parts:
        connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))


def test_chunked_bodies(small):
    with small.connect() as connection:
        chunks(connection, padded(LIMIT)[:500], padded(LIMIT)[500:], b"")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    with small.connect() as connection:
        chunks(connection, padded(600), b" " * 401)  # and no end
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_compressed_bodies(small):
    for level in (0, 9):
        answer = small.ask("POST", PREDICT, gzip.compress(padded(900), level), Content_Encoding="gzip")
        assert (answer.status, answer.body) == (200, PREDICTIONS)
    answer = small.ask("POST", PREDICT, gzip.compress(padded(LIMIT + 1)), Content_Encoding="gzip")
    assert (answer.status, error(answer)) == (413, "The request body is larger than 1000 bytes")


def test_a_small_body_that_would_become_huge_is_not_expanded(small):
    compressor = zlib.compressobj(9, wbits=31)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64)) + compressor.flush()
    with served(application(max_body_bytes=1 << 20)) as server:
        tracemalloc.start()
        try:
            assert server.ask("POST", PREDICT, bomb, Content_Encoding="gzip").status == 413
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize(
    "body",
    [b"", b"no gzip", gzip.compress(ONE)[:-1], gzip.compress(ONE) + b"more", zlib.compress(ONE)],
    ids=["empty", "text", "cut", "more", "zlib"],
)
def test_what_is_not_compressed_as_it_says(small, body):
    answer = small.ask("POST", PREDICT, body, Content_Encoding="gzip")
    assert (answer.status, error(answer)) == (400, "Failed to uncompress the gzipped body")


def test_a_body_that_does_not_come():
    with served(application(timeout_seconds=0.05)) as server, server.connect() as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.fixture(scope="module")
def guarded():
    """An API that wants a token, and lets web pages call."""
    routes = [Route("/v1/extra", lambda _: PlainTextResponse("extra"))]
    settings = {"bearer_token": "s3cret", "cors": True, "metrics_path": "/metrics"}
    with served(application(routes, **settings)) as server:
        yield server


PATHS = ["/v1/models/m", "/v1/models", "/metrics", "/v1/extra", "/anything"]


@pytest.mark.parametrize(
    "authorization",
    [None, "", "s3cret", "Bearer", "Bearer wrong", "Basic s3cret", "Bearer s3cretx", "Bearer \xe9"],
)
@pytest.mark.parametrize("path", PATHS)
def test_without_the_token(guarded, path, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = guarded.ask("GET", path, **headers)
    assert answer.status == 401
    assert "Authorization: Bearer TOKEN" in error(answer)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert b"s3cret" not in answer.body


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
@pytest.mark.parametrize("path", PATHS)
def test_with_the_token(guarded, path, scheme):
    answer = guarded.ask("GET", path, Authorization=f"{scheme} s3cret")
    assert answer.status == (404 if path == "/anything" else 200)


def test_the_health_check_needs_no_token(guarded):
    assert guarded.ask("GET", "/healthz").status == 200
    assert guarded.ask("POST", "/healthz").status == 401


def test_browsers_may_ask_whether_they_may_call(guarded):
    for path in (PREDICT, "/v1/extra"):
        answer = guarded.ask("OPTIONS", path, Origin="https://example.org")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-methods"] == "POST, GET"
        assert answer.headers["access-control-allow-headers"] == "Content-Type, Authorization"
    answer = guarded.ask("OPTIONS", PREDICT)
    assert (answer.status, error(answer)) == (400, "Origin header is missing in CORS preflight")


def test_web_pages_may_not_call_unless_allowed(small):
    answer = small.ask("OPTIONS", PREDICT, Origin="https://example.org")
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-origin" not in small.ask("POST", PREDICT, ONE).headers


def test_answers_to_web_pages():
    with served(application(cors=True)) as server:
        for answer in (server.ask("POST", PREDICT, ONE), server.ask("POST", PREDICT, b"?")):
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["access-control-allow-headers"] == "Content-Type"


def test_health():
    available = threading.Event()
    with served(application(ready=available.is_set)) as server:
        answer = server.ask("GET", "/healthz")
        assert (answer.status, error(answer)) == (503, "Not all models are available")
        available.set()
        assert server.ask("GET", "/healthz").status == 200


def test_metrics():
    page = b"# TYPE :tensorflow:serving:request_count counter\n"
    with served(application(metrics=lambda: page, metrics_path="/monitoring/prometheus/metrics")) as server:
        answer = server.ask("GET", "/monitoring/prometheus/metrics")
        assert (answer.status, answer.body) == (200, page)
        assert answer.headers["content-type"] == "text/plain"
    with served(application()) as server:
        assert server.ask("GET", "/monitoring/prometheus/metrics").status == 404


class Further:
    """Routes as others write them."""

    def __init__(self):
        self.ended = threading.Event()
        self.routes = [
            Route("/v1/models/{name}:generate", self.generate, methods=["POST"]),
            Route("/v1/fails", self.fails, methods=["POST"]),
            Route("/v1/bug", self.bug, methods=["POST"]),
        ]

    async def generate(self, request):
        body = await request.body()

        async def events():
            try:
                yield b"data: " + body + b"\n\n"
                await asyncio.Event().wait()
            finally:
                self.ended.set()

        return StreamingResponse(events(), media_type="text/event-stream")

    async def fails(self, _):
        raise StatusError(grpc.StatusCode.NOT_FOUND, "no such thing")

    async def bug(self, _):
        raise RuntimeError("a secret")


def test_further_routes():
    further = Further()
    with served(application(further.routes, max_body_bytes=LIMIT, timeout_seconds=0.2)) as server:
        answer = server.ask("POST", "/v1/fails")
        assert (answer.status, error(answer)) == (404, "no such thing")
        answer = server.ask("POST", "/v1/bug")
        assert (answer.status, error(answer)) == (500, "POST /v1/bug failed; the server's log says why")
        assert server.ask("POST", "/v1/fails", bytes(LIMIT + 1)).status == 413
        answer = server.ask("GET", "/v1/fails")
        assert (answer.status, error(answer)) == (400, "Malformed request: GET /v1/fails")
        with server.connect() as connection:
            body = gzip.compress(b"hello")
            head = f"Host: x\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(f"POST /v1/models/m:generate HTTP/1.1\r\n{head}".encode() + body)
            received = b""
            while b"data: hello\n\n" not in received:
                received += connection.recv(1000)
            assert not further.ended.is_set()  # streams may take longer than requests
        assert further.ended.wait(DEADLINE)
