"""The sockets that the server listens on: gRPC, with TLS or without, and HTTP."""

from __future__ import annotations

import asyncio
import errno
import hmac
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import uvicorn

from serving.config_files import Tls
from serving.options import ServerOptions
from serving.program import UserError


def grpc_server(options: ServerOptions) -> grpc.aio.Server:
    """A server that has no services yet, and no address."""
    return grpc.aio.server(
        interceptors=[_BearerToken(options.bearer_token)] if options.bearer_token else [],
        options=[
            *options.grpc_channel_arguments,  # before ours, since gRPC heeds the first of a name
            ("grpc.so_reuseport", 0),  # or a second server would share the port, and get half the calls
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # Further calls of a connection wait at the client. gRPC cancels calls when 1000 wait here.
            ("grpc.max_concurrent_streams", 500),
        ],
    )


def bind_grpc(server: grpc.aio.Server, options: ServerOptions) -> int:
    """The port that the server will listen on, and on the unix socket, if there is to be one.

    Raises:
        UserError: an address cannot be had.
    """
    if options.grpc_socket_path:
        _bind_socket_path(server, options.grpc_socket_path)
    try:
        _check_address(options.host, options.port)
        if options.tls is None:
            return server.add_insecure_port(_address(options.host, options.port))
        return server.add_secure_port(_address(options.host, options.port), _credentials(options.tls))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    except RuntimeError:
        reason = (
            "it was taken a moment ago" if options.tls is None else "the key or a certificate is unusable"
        )
    raise _cannot_listen(options.host, options.port, reason, "port")


def _bind_socket_path(server: grpc.aio.Server, path: str) -> None:
    # gRPC would take the place of any file there.
    if os.path.exists(path) and _answers(path):
        raise UserError(f"--grpc_socket_path={path}: another server listens there")
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise UserError(f"--grpc_socket_path={path}: cannot listen there") from error


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:  # left behind by a server that was killed
            return False
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(f"--grpc_socket_path={path}: {reason}") from error
    return True


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.server_key.encode(), tls.server_cert.encode())],
        tls.custom_ca.encode() or None,
        tls.client_verify,
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cannot_listen(host: str, port: int, reason: str, flag: str) -> UserError:
    return UserError(f"cannot listen on {_address(host, port)}: {reason}; give another --{flag} or --host")


def _check_address(host: str, port: int) -> None:
    """Raises the OSError that keeps us from listening.

    gRPC does not say why it cannot; and it is content when one of a host's addresses is free (localhost has
    two), so that some callers would reach another server.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    errors = []
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does
                probe.bind(address)
        except OSError as error:
            errors.append(error)
    for problem in errors:
        if problem.errno == errno.EADDRINUSE or len(errors) == len(addresses):
            raise problem


class _BearerToken(grpc.aio.ServerInterceptor):
    """Turns away callers that have not the token; only health checks need none."""

    def __init__(self, token: str):
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        given = dict(handler_call_details.invocation_metadata).get("authorization", "")
        handler = await continuation(handler_call_details)
        is_health_check = handler_call_details.method.startswith("/grpc.health.v1.Health/")
        if is_health_check or hmac.compare_digest(_as_bytes(given), self._expected):
            return handler
        return _refusing(handler)


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _refusing(handler: Any) -> grpc.RpcMethodHandler:
    """A handler of the same kind that answers UNAUTHENTICATED."""

    async def refuse(_: Any, context: grpc.aio.ServicerContext) -> None:
        message = "this server wants the metadata authorization: Bearer TOKEN, with its token"
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, message)

    if handler is not None and handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse)
    if handler is not None and handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse)
    return grpc.unary_unary_rpc_method_handler(refuse)


class HttpServer:
    """Serves an ASGI application over HTTP in the running event loop."""

    def __init__(self, application: Any, host: str, port: int):
        """Binds the port, and answers nothing yet.

        Raises:
            UserError: the address cannot be had.
        """
        self._socket = _bound_socket(host, port)
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(
            application, lifespan="off", log_config=None, log_level="warning", access_log=False,
            server_header=False, loop="none",
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._serving: asyncio.Task | None = None

    def start(self) -> None:
        self._serving = asyncio.get_running_loop().create_task(self._server.serve([self._socket]))

    async def stop(self, grace_seconds: float) -> None:
        """Accept no more, and wait for what is under way."""
        if self._serving is None:
            self._socket.close()
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_seconds)) if grace_seconds else 0
        self._server.should_exit = True
        await self._serving

    def hurry(self) -> None:
        """Wait no longer."""
        self._server.force_exit = True


def _bound_socket(host: str, port: int) -> socket.socket:
    try:
        _check_address(host, port)
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise _cannot_listen(host, port, reason, "rest_api_port") from error
