"""zoo-serve as a process with ports of its own, and the stock stubs and HTTP to speak to it."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.message_factory import GetMessageClass
from http_core import DEADLINE, Answer, Server

from serving.messages import (
    model_service_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)

PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
MANAGEMENT = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]


def _free_ports() -> list[int]:
    """Two ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        return [probe.getsockname()[1] for probe in probes]


def begin(channel: grpc.Channel, method: str, request: str) -> Any:
    """Calls a method of the stock services by the stock stub, with a request in text format; a future."""
    if method in PREDICTION.methods_by_name:
        service, stub = PREDICTION, prediction_service_pb2_grpc.PredictionServiceStub(channel)
    else:
        service, stub = MANAGEMENT, model_service_pb2_grpc.ModelServiceStub(channel)
    message = GetMessageClass(service.methods_by_name[method].input_type)()
    return getattr(stub, method).future(text_format.Parse(request, message), timeout=DEADLINE)


class ServerProcess:
    """A process that serves, the files that it serves from, and what it has logged."""

    def __init__(self, command: Callable[..., list[str]], folder: Path, *flags: str):
        self.folder = folder
        self.port, self.rest_api_port = _free_ports()
        self.address = f"127.0.0.1:{self.port}"
        ports = (f"--port={self.port}", f"--rest_api_port={self.rest_api_port}")
        with open(folder / "log", "w") as log:
            self._process = subprocess.Popen(
                command("serving.server", *ports, *flags), stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._channel = grpc.insecure_channel(self.address)

    @functools.cached_property
    def announced(self) -> Any:
        """What it says on stdout as soon as it listens; waits for that."""
        line = self._process.stdout.readline()
        assert line, self.log()
        return json.loads(line)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def stop(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.communicate()

    def begin(self, method: str, request: str) -> Any:
        return begin(self._channel, method, request)

    def ask(self, method: str, request: str) -> Any:
        return self.begin(method, request).result()

    def http(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return Server(self.rest_api_port).ask(method, path, body, **headers)
