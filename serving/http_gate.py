"""What every HTTP request passes before it is answered, and how it is answered when it does not pass.

Plain ASGI, so that it holds for all routes alike, and streams pass untouched.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import zlib

import grpc
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import json_results
from serving.rpc import StatusError, invalid

HEALTH_PATH = "/healthz"
_HTTP_STATUS = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}


def http_status(code: grpc.StatusCode) -> int:
    """The HTTP status that the stock server gives a code (model_servers/http_server.cc)."""
    return _HTTP_STATUS.get(code, 500)


def error_response(error: StatusError) -> Response:
    """An error in the stock server's form."""
    return _refusal(http_status(error.code), error.message)


def _refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    # A message may quote bytes that are no text.
    content = json_results.error(message).encode("utf-8", "replace")
    return Response(content, status, headers, media_type="application/json")


def preflight(request: Request) -> Response:
    """The answer to OPTIONS, by which browsers ask whether they may call."""
    if re.search("https?://", request.headers.get("origin", "")):
        return Response()
    error = StatusError(grpc.StatusCode.FAILED_PRECONDITION, "Origin header is missing in CORS preflight")
    return error_response(error)


class CrossOrigin:
    """Lets pages of all origins call, and answers their browsers' questions, which carry no token."""

    def __init__(self, app: ASGIApp, allowed_headers: str):
        self._app = app
        self._headers = {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "POST, GET",
            "Access-Control-Allow-Headers": allowed_headers,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        app: ASGIApp = self._app
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            app = preflight(Request(scope))
        await app(scope, receive, send_with_headers)


class BearerToken:
    """Turns away whoever has not the token; only the health check needs none."""

    def __init__(self, app: ASGIApp, token: str):
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and not self._may_pass(scope):
            message = "This server wants the header Authorization: Bearer TOKEN, with its token"
            app = _refusal(401, message, {"WWW-Authenticate": "Bearer"})
        await app(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if (scope["method"], scope["path"]) == ("GET", HEALTH_PATH):
            return True
        scheme, _, token = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


class BoundedBody:
    """Reads the whole body, decompresses it, and passes it on; says 413 as soon as it is too large."""

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_seconds: float | None):
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            reading = self._read(Headers(scope=scope), receive)
            body: bytes | None = await asyncio.wait_for(reading, self._timeout_seconds)
        except (StatusError, _TooLargeError, asyncio.TimeoutError) as error:
            await self._response(error)(scope, receive, send)
            return

        async def receive_body() -> Message:
            nonlocal body
            if body is None:
                return await receive()  # which waits until the caller goes away
            content, body = body, None
            return {"type": "http.request", "body": content, "more_body": False}

        if body is not None:
            await self._app(scope, receive_body, send)

    def _response(self, error: Exception) -> Response:
        if isinstance(error, StatusError):
            return error_response(error)
        close = {"Connection": "close"}  # there is more of the body, which nobody will read
        if isinstance(error, _TooLargeError):
            return _refusal(413, f"The request body is larger than {self._max_bytes} bytes", close)
        return _refusal(408, f"The request body took longer than {self._timeout_seconds:g} s", close)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise _TooLargeError
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_bytes:
                raise _TooLargeError
        if "gzip" in headers.get("content-encoding", ""):
            return await asyncio.to_thread(_decompressed, bytes(body), self._max_bytes)
        return bytes(body)


class _TooLargeError(Exception):
    pass


def _decompressed(body: bytes, max_bytes: int) -> bytes:
    stream = zlib.decompressobj(wbits=31)  # 31: with gzip's header
    try:
        content = stream.decompress(body, max_bytes + 1)
    except zlib.error:
        raise invalid("Failed to uncompress the gzipped body") from None
    if len(content) > max_bytes:
        raise _TooLargeError
    if not stream.eof or stream.unused_data:
        raise invalid("Failed to uncompress the gzipped body")
    return content
