"""zoo-serve: a model server with TensorFlow Serving's gRPC API.

    zoo-serve --model_name=NAME --model_base_path=BASE [--port=8500]

Serves the newest BASE/<version>/ (any SavedModel) and moves on to a newer one as soon as it is
there: the new version is loaded first, then takes over, then the old one is freed. Offers
PredictionService (Predict, Classify, GetModelMetadata), ModelService (GetModelStatus) and the standard gRPC
health check. When it listens it prints one JSON line, {"host": ..., "port": ..., "model": ...}, on
stdout. SIGTERM and Ctrl-C stop it: it accepts no more, finishes what is under way, and exits with
code 0; a second signal does not wait. Flags are the stock server's where it has them; unknown ones
are reported and ignored.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from types import FrameType
from typing import Any

# What gRPC would log repeats our own messages, in many lines. Set before it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from absl import logging
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving import options, program, rpc
from serving.management import ModelService
from serving.messages import model_service_pb2, prediction_service_pb2
from serving.options import ServerOptions
from serving.prediction import PredictionService
from serving.repository import Repository
from serving.versions import Servable

_HEALTH_SERVICES = ("", "ModelService", "PredictionService")


class ModelServer:
    """A gRPC server and the repository that it answers from."""

    def __init__(self, options: ServerOptions, load: Callable[[str], Servable]):
        """Binds the port, and answers nothing yet.

        Raises:
            UserError: the address cannot be had.
        """
        self._health = health.HealthServicer()
        self.repository = Repository(
            [(options.model_name, options.model_base_path)], load, options.policy, self._report_health
        )
        self._report_health()
        self._server = _grpc_server(options)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._server.add_generic_rpc_handlers(
            (
                rpc.handler(_service(prediction_service_pb2), PredictionService(self.repository)),
                rpc.handler(_service(model_service_pb2), ModelService(self.repository)),
            )
        )
        self.port = _bind(self._server, options.host, options.port)

    def _report_health(self) -> None:
        response = health_pb2.HealthCheckResponse
        status = response.SERVING if self.repository.all_available() else response.NOT_SERVING
        for service in _HEALTH_SERVICES:
            self._health.set(service, status)

    def start(self) -> None:
        """Answer requests. The repository is started separately, usually before."""
        self._server.start()

    def stop(self, grace_seconds: float, hurry: Callable[[], bool] = lambda: False) -> bool:
        """Accept no more, wait for what is under way, free the models; False if some had to be cut off.

        `hurry` is asked several times a second whether to wait no longer.
        """
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(grace_seconds)
        while not stopped.wait(0.1):
            if hurry():
                self._server.stop(None)
                break
        return self.repository.close(timeout=1.0)


def _service(module: Any) -> Any:
    """The descriptor of the one service that a module of stubs defines."""
    (service,) = module.DESCRIPTOR.services_by_name.values()
    return service


def _grpc_server(options: ServerOptions) -> grpc.Server:
    return grpc.server(
        futures.ThreadPoolExecutor(options.max_threads, thread_name_prefix="grpc"),
        options=[
            ("grpc.so_reuseport", 0),  # or a second server would share the port, and get half the calls
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.max_send_message_length", -1),
        ],
    )


def _bind(server: grpc.Server, host: str, port: int) -> int:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        _check_address(host, port)
        return server.add_insecure_port(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    except RuntimeError:  # between our look and its own
        reason = "it was taken a moment ago"
    raise program.UserError(
        f"cannot listen on {address}: {reason}; give another --port (0 takes any that is free) or --host"
    )


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


class _StopRequests:
    """Counts SIGTERM and SIGINT, which mean the same here: one is a request, two are impatience."""

    def __init__(self) -> None:
        self.count = 0
        signal.signal(signal.SIGTERM, self._add)
        signal.signal(signal.SIGINT, self._add)

    def _add(self, _signal: int, _frame: FrameType | None) -> None:
        self.count += 1


@functools.cache
def _saved_model_class() -> Callable[[str], Servable]:
    with program.native_stderr_muted():
        from serving import saved_model

        saved_model.set_up_tensorflow()
    return saved_model.SavedModel


def load_saved_model(path: str) -> Servable:
    """Loads a version. TensorFlow comes in with the first: it takes seconds, and a wrong flag should not."""
    return _saved_model_class()(path)


def main(arguments: Sequence[str]) -> None:
    """Serve until a signal comes."""
    logging.set_verbosity(logging.INFO)
    stop_requests = _StopRequests()
    for argument in arguments:
        print(f"zoo-serve: unknown argument ignored: {argument}", file=sys.stderr)
    server_options = options.from_flags()
    server = ModelServer(server_options, load_saved_model)
    server.repository.start()
    if _wait_until_available(server.repository, lambda: stop_requests.count > 0):
        server.start()
        _announce(server_options, server.port)
    while not stop_requests.count:
        time.sleep(0.1)  # not signal.pause(): a signal just before it would be missed
    clean = server.stop(server_options.shutdown_grace_seconds, lambda: stop_requests.count > 1)
    if not clean:
        # A request or a load that runs in TensorFlow cannot be interrupted, and Python would wait for it.
        sys.stdout.flush()
        os._exit(0)


def _wait_until_available(repository: Repository, stop: Callable[[], bool]) -> bool:
    """Like the stock server: waits for a version for ever, unless loading has failed for good."""
    while not stop():
        if repository.wait_until_settled(timeout=0.2):
            for name, error in repository.failures():
                raise program.UserError(f"cannot serve {name}: {error.message}")
            return True
    return False


def _announce(options: ServerOptions, port: int) -> None:
    print(
        f"zoo-serve: {options.model_name} answers gRPC on {options.host}:{port}; Ctrl-C stops it",
        file=sys.stderr,
        flush=True,
    )
    print(json.dumps({"host": options.host, "port": port, "model": options.model_name}), flush=True)


def run() -> None:
    """The program."""
    options.define_flags()
    program.run("zoo-serve", main, __doc__ or "", ["serving.options"], known_flags_only=True)
